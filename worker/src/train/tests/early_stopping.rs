//! Trials that end before their last epoch.

use super::*;

/// A learning rate at which the validation loss goes up and down.
const UNSTEADY: Settings<'_> =
    &[("learning_rate", "0.3"), ("normalization", "batch"), ("epochs", "14"), ("label_smoothing", "0.1")];

fn unsteady<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    merged(&[UNSTEADY, more].concat())
}

/// The epoch after which a patience is used up by these losses, from 1.
fn end(losses: &[f64], patience: usize) -> Option<usize> {
    (patience + 1..=losses.len()).find(|&epoch| {
        let (before, since) = losses[..epoch].split_at(epoch - patience);
        let lowest = before.iter().fold(f64::INFINITY, |lowest, loss| lowest.min(*loss));
        since.iter().all(|loss| *loss >= lowest)
    })
}

#[test]
fn a_trial_that_stops_early_is_the_trial_of_that_many_epochs() {
    let dataset = dataset(100, 20);
    let seeds = Seeds::from_one(1);
    let run =
        |more: &[(&str, &str)]| run_tested(&group(&[(&unsteady(more), seeds)]), &dataset, Testing::AtTheEnd);
    let whole = run(&[]);
    let losses: Vec<f64> = whole.reports[0].iter().map(|(_, validation, _)| validation.loss.get()).collect();
    let mut ends = Vec::new();
    for patience in 1..=3 {
        let expected = end(&losses, patience).expect("losses that go up and down");
        ends.push(expected);
        let stopped = run(&[("early_stopping_patience", &patience.to_string())]);
        let short = run(&[("epochs", &expected.to_string())]);
        assert_eq!(stopped, short, "patience {patience}: it should end after epoch {expected} of {losses:?}");
        let tested = stopped.reports[0].iter().map(|(_, _, test)| test.is_some());
        assert_eq!(
            tested.collect::<Vec<_>>(),
            (1..=expected).map(|epoch| epoch == expected).collect::<Vec<_>>()
        );
    }
    assert!(ends[0] < 14 && ends[0] < ends[2], "the losses make no difference: {ends:?}");
}

#[test]
fn a_lane_that_stops_early_gets_the_bits_that_it_would_get_alone() {
    let dataset = dataset(100, 20);
    let seeds = |trial: u64| Seeds { trial, ..Seeds::from_one(1) };
    let settings = [
        unsteady(&[("early_stopping_patience", "1")]),
        unsteady(&[]),
        unsteady(&[("early_stopping_patience", "2")]),
    ];
    let trials: Vec<(Settings<'_>, Seeds)> =
        settings.iter().zip(1..).map(|(settings, trial)| (&settings[..], seeds(trial))).collect();
    for testing in [Testing::Never, Testing::AtTheEnd, Testing::EveryEpoch] {
        let together = run_tested(&group(&trials), &dataset, testing);
        assert!(together.reports[0].len() < 14, "it did not stop early");
        assert_eq!(together.reports[1].len(), 14);
        for (lane, trial) in trials.iter().enumerate() {
            let alone = run_tested(&group(&[*trial]), &dataset, testing);
            assert_eq!(alone.reports[0], together.reports[lane], "{testing:?}: reports of lane {lane}");
            assert_eq!(alone.tensors[0], together.tensors[lane], "{testing:?}: weights of lane {lane}");
        }
    }
}

#[test]
fn a_model_counts_the_batches_of_each_lane_until_it_stopped() {
    let settings = [unsteady(&[("early_stopping_patience", "1")]), unsteady(&[])];
    let group = group(&[(&settings[0], Seeds::from_one(1)), (&settings[1], Seeds::from_one(1))]);
    let mut epochs = [0, 0];
    let outcome = train(&group, &placed(&dataset(100, 20)), Testing::Never, &mut |progress| {
        if let Progress::Epoch(lanes) = progress {
            epochs.iter_mut().zip(lanes).for_each(|(epochs, lane)| *epochs += u64::from(lane.is_ok()));
        }
        ControlFlow::Continue(())
    });
    let Ok(Outcome::Finished(trained)) = outcome else { panic!("{outcome:?}") };
    // 91 images to train on make 6 batches of 16.
    assert_eq!(trained.model.steps, epochs.map(|epochs| 6 * epochs));
    assert!(epochs[0] < epochs[1], "it did not stop early");
    assert_eq!(trained.lanes, [Ok(()), Ok(())]);
}
