//! The lines of an agent, as its trainer reads them; see [`crate::fuzz`].

use std::io::BufRead;
use std::sync::{Mutex, mpsc};

use super::protocol::{Command, Event};
use super::{Lines, Pending, read};

/// Every line is a command, or answered with an event that fits into a line. A command is the same when it
/// is written and read again.
pub fn commands(bytes: &[u8]) {
    let lines = Lines(Mutex::new(Vec::new()));
    let (sender, jobs) = mpsc::channel();
    read(bytes, &lines, &Pending::default(), sender);
    let jobs = jobs.into_iter().count();

    let (mut asked, mut wishes) = (0, 0);
    for line in bytes.lines().map_while(Result::ok).filter(|line| !line.trim().is_empty()) {
        asked += 1;
        let Ok(command) = serde_json::from_str::<Command>(&line) else { continue };
        wishes += usize::from(matches!(command, Command::Stop { .. } | Command::Suspend { .. }));
        let written = serde_json::to_string(&command).expect("a command can be written");
        assert!(!written.contains('\n'), "{written}");
        assert_eq!(serde_json::from_str::<Command>(&written).ok().as_ref(), Some(&command));
    }
    let answers = lines.0.into_inner().expect("not poisoned");
    let answers: Vec<_> = answers.lines().map(|line| line.expect("UTF-8")).collect();
    for answer in &answers {
        assert!(answer.len() < 8_192, "{answer}");
        let event = serde_json::from_str(answer).expect("an event");
        assert!(matches!(&event, Event::Failed { id, .. } if id.is_empty()), "{event:?}");
    }
    assert_eq!(jobs + wishes + answers.len(), asked, "each line is taken or answered");
}
