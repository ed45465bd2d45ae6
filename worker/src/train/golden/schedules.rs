//! Schedules: their learning rates over whole trainings, and where optimizers go by them.

use super::{assert_near, fixture};
use crate::train::rng::Moment;
use crate::train::schedule::{Place, Scheduler};
use crate::train::testing::{Settings, group};
use fittingroom_common::trial::Seeds;

/// Epochs and steps of an epoch that the script takes.
const EPOCHS: u32 = 7;
const STEPS: usize = 5;

/// What f64 may be off: PyTorch multiplies from step to step.
const TOLERANCE: f64 = 1e-13;

const TABLE: [(&str, Settings<'_>); 12] = [
    ("constant", &[]),
    ("step", &[("schedule", "step"), ("schedule_step_epochs", "2"), ("schedule_gamma", "0.3")]),
    ("exponential", &[("schedule", "exponential"), ("schedule_gamma", "0.9")]),
    ("cosine", &[("schedule", "cosine")]),
    ("cosine to a tenth", &[("schedule", "cosine"), ("final_factor", "0.1")]),
    ("cosine with warm-up", &[("schedule", "cosine"), ("warmup_epochs", "1.4"), ("final_factor", "0.01")]),
    ("one cycle", &[("schedule", "one_cycle")]),
    (
        "one cycle, other numbers",
        &[
            ("schedule", "one_cycle"),
            ("pct_start", "0.45"),
            ("div_factor", "10"),
            ("final_div_factor", "100"),
        ],
    ),
    ("one cycle without a rise", &[("schedule", "one_cycle"), ("pct_start", "0")]),
    ("one cycle without a fall", &[("schedule", "one_cycle"), ("pct_start", "1")]),
    ("plateau", &[("schedule", "reduce_on_plateau"), ("schedule_gamma", "0.5"), ("schedule_patience", "1")]),
    (
        "plateau without patience",
        &[("schedule", "reduce_on_plateau"), ("schedule_gamma", "0.2"), ("schedule_patience", "0")],
    ),
];

#[test]
fn learning_rates_are_pytorchs() {
    let fixture = fixture!("schedules");
    fixture.assert_rows(TABLE.iter().map(|(row, _)| *row).chain(["validation"]));
    let losses = &fixture.get("validation", "losses").values;
    assert_eq!(losses.len(), EPOCHS as usize);
    // As lanes of one group: none may see another's settings.
    let settings: Vec<_> =
        TABLE.iter().map(|(_, row)| [&[("learning_rate", "0.03")], *row].concat()).collect();
    let trials: Vec<(Settings<'_>, Seeds)> =
        settings.iter().map(|settings| (&settings[..], Seeds::from_one(1))).collect();
    let mut scheduler = Scheduler::new(&group(&trials).lanes);
    let mut curves = vec![Vec::new(); TABLE.len()];
    for (epoch, loss) in (1..).zip(losses) {
        for step in 0..STEPS {
            let place = Place { moment: Moment { epoch, step }, steps: STEPS, epochs: EPOCHS };
            for (curve, rate) in curves.iter_mut().zip(scheduler.learning_rates(place)) {
                curve.push(rate);
            }
        }
        scheduler.observe([*loss; TABLE.len()]);
    }
    for ((row, _), curve) in TABLE.iter().zip(&curves) {
        assert_near(row, curve, &fixture.get(row, "rates").values, TOLERANCE);
    }
}
