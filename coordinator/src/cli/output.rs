//! Where results and diagnostics go: results to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::error::CliError;

/// How a command shows its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where results go.
pub(crate) struct Output {
    sink: Box<dyn Write + Send>,
    width: Option<u16>,
}

impl Output {
    /// The process's standard output.
    pub(crate) fn stdout() -> Self {
        let width = if io::stdout().is_terminal() {
            crossterm::terminal::size().ok().map(|(columns, _)| columns)
        } else {
            None
        };
        Self { sink: Box::new(io::stdout()), width: width.filter(|columns| *columns > 0) }
    }

    /// Columns of the terminal; `None` where results do not go to one.
    pub(crate) const fn width(&self) -> Option<u16> {
        self.width
    }

    /// Prints a text and ends its line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        let mut whole = String::with_capacity(text.len() + 1);
        whole.push_str(text);
        if !text.ends_with('\n') {
            whole.push('\n');
        }
        self.write(whole.as_bytes())
    }

    /// Prints a document, laid out for reading.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let mut bytes = serde_json::to_vec_pretty(document).map_err(|e| CliError::Output(e.into()))?;
        bytes.push(b'\n');
        self.write(&bytes)
    }

    /// Prints a document on a line of its own.
    pub(crate) fn json_line(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let mut bytes = serde_json::to_vec(document).map_err(|e| CliError::Output(e.into()))?;
        bytes.push(b'\n');
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(CliError::Output)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Tells the person something that is not the result. A closed stderr is nobody listening.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// An output that keeps what was printed.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        pub(crate) fn output(&self) -> Output {
            Output { sink: Box::new(self.clone()), width: None }
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_result_ends_its_line_once() {
        let kept = Kept::default();
        let mut output = kept.output();
        output.line("one").expect("prints");
        output.line("two\n").expect("prints");
        output.json_line(&serde_json::json!({"three": 3})).expect("prints");
        assert_eq!(kept.text(), "one\ntwo\n{\"three\":3}\n");
    }

    #[test]
    fn a_closed_pipe_ends_the_command_quietly() {
        let mut output = Output { sink: Box::new(Closed), width: None };
        let error = output.line("one").expect_err("closed");
        assert_eq!(error.exit_code(), 0);
    }
}
