//! What a trainer says of a disk that does not take what it writes.

use super::*;

#[test]
fn what_the_disk_does_not_take_is_told_and_training_goes_on_as_long_as_it_can() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let files = write(&dataset(100, 20), folder.path());
    let [gone, there] = ["gone/model", "model"].map(|name| folder.path().join(name));
    let unwritable = line(&of_four_epochs("7/1", &files, gone, None));
    let events = answers(Cursor::new(unwritable + &line(&of_four_epochs("7/2", &files, there, None))));
    let is_end = |event: &Event| matches!(event, Event::Unwritten { .. });
    let end = events.iter().position(is_end).unwrap_or_else(|| panic!("{events:?}"));
    let (told, next) = events.split_at(end + 1);
    let warnings = told.iter().filter(|event| matches!(event, Event::Warned { .. }));
    assert!(warnings.count() >= 3, "a checkpoint after each epoch: {told:?}");
    assert_eq!(results(told).len(), 4, "{told:?}");
    let Event::Unwritten { id, problem, bytes: 1.. } = &told[end] else { panic!("{told:?}") };
    assert!(id == "7/1" && problem.contains("cannot be written"), "{problem}");
    assert!(matches!(next.last(), Some(Event::Finished { id, .. }) if id == "7/2"), "{next:?}");
}
