//! What is said of files that are wrong.

mod parameters;
mod searches;

use fittingroom_common::space::{MAX_FILE_BYTES, SearchSpec};

use crate::parse;

/// What is wrong, the file, line:column, words of the message and its help.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

/// Each file is refused, and told where and why.
fn must_be_told(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for (what, text, place, words) in rows {
        let said = match parse(text) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => format!("{} help: {}", error.located(), error.help().unwrap_or("-")),
        };
        let is_there = said.starts_with(&format!("file.yaml:{place}: "));
        if !is_there || !words.iter().all(|word| said.contains(word)) {
            wrong.push(format!("{what}: not at {place} with {words:?}, but {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn aliases_that_multiply_are_stopped() {
    let mut text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for (name, below) in
        ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
    {
        text += &format!("{name}: &{name} [{}]\n", vec![format!("*{below}"); 10].join(", "));
    }
    let error = parse(&text).expect_err("too much");
    assert!(error.message().contains("too large"), "{}", error.located());
}

#[test]
fn files_that_are_no_small_text_are_refused() {
    let error = SearchSpec::parse_bytes("f.yaml", b"method: grid\nname: \xff\n").expect_err("not UTF-8");
    assert_eq!(error.located(), "f.yaml:2:7: this is not UTF-8 text");
    let error = parse(&"#".repeat(MAX_FILE_BYTES + 1)).expect_err("too large");
    assert!(error.message().contains("1048577 bytes"), "{}", error.located());
}

#[test]
fn miette_shows_the_line() {
    let error = parse("method: grid\nparameters:\n  dropout: {values: [0.1, ö]}\n").expect_err("wrong");
    let mut shown = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none()).with_width(100);
    handler.render_report(&mut shown, &error).expect("renders");
    for part in ["dropout cannot be \"ö\"", "file.yaml:3:27", "dropout: {values: [0.1, ö]}"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}
