//! Which hyperparameters a trial has: a pure function of the search and the trial's number.
//!
//! However many workers there are, and in whatever order they come, trial `n` is replicate
//! `n % replicates` of point `n / replicates`, and a point is found from its number alone: by
//! unravelling it (grid), by drawing from streams named after it (random), or in a list (points).
//! There is no clock, no generator of a thread's own, no network and no database in this module.

mod draw;
mod permutation;

use fittingroom_common::hyperparameter::Hyperparameters;
use fittingroom_common::id::TrialId;
use fittingroom_common::rng::Stream;
use fittingroom_common::space::{Alive, Grid, Method, SearchSpec};

use permutation::Permutation;

/// Spaces with more points than this are drawn from without looking for repetitions: among a
/// million points of it, the chance of any is below 1 in 10^6.
const LARGEST_SHUFFLED: u128 = 1 << 62;

/// A search, prepared so that any of its trials is found in no time.
///
/// ```
/// use fittingroom_common::id::TrialId;
/// use fittingroom_common::space::SearchSpec;
/// use fittingroom_coordinator::method::Plan;
///
/// let file = "method: grid\nparameters: {optimizer: {values: [sgd, adam]}, epochs: {min: 1, max: 3}}";
/// let spec = SearchSpec::parse("example.yaml", file).unwrap().spec;
/// let plan = Plan::new(&spec);
/// assert_eq!(plan.hyperparameters(TrialId::new(4)).unwrap().to_string(), "optimizer=adam epochs=2");
/// assert_eq!(plan.hyperparameters(TrialId::new(6)), None);
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    spec: SearchSpec,
    source: Source,
}

/// Where points come from.
#[derive(Clone, Debug)]
enum Source {
    /// A finite space, point by point.
    Grid(Grid),
    /// A finite space, each point at most once, in an order that the seed decides.
    Shuffled(Grid, Permutation),
    /// Each point drawn by itself; dimensions in this order.
    Drawn(Vec<usize>),
    /// The search's own list.
    Listed,
}

/// A point of a search and one of the trials at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicate {
    /// Which point, from 0.
    pub point: u64,
    /// Which of the trials at the point, from 0. Trials of the same number share the order of their data.
    pub number: u32,
}

impl Plan {
    /// Prepares a search.
    pub fn new(spec: &SearchSpec) -> Self {
        let source = match spec.method {
            Method::Points => Source::Listed,
            Method::Grid => Grid::new(&spec.space).map_or_else(|| drawn(spec), Source::Grid),
            Method::Random if spec.space.is_evenly_finite() => {
                Grid::new(&spec.space).map_or_else(|| drawn(spec), |grid| shuffled(spec, grid))
            }
            Method::Random => drawn(spec),
        };
        Self { spec: spec.clone(), source }
    }

    /// The point and the replicate that a trial is; `None` if the search has no such trial.
    pub fn replicate(&self, trial: TrialId) -> Option<Replicate> {
        let replicates = u64::from(self.spec.replicates);
        (trial.get() < self.spec.trial_count()).then(|| Replicate {
            point: trial.get() / replicates,
            // Below `replicates`, which is a u32.
            number: (trial.get() % replicates) as u32,
        })
    }

    /// The hyperparameters of a trial that the search names and that exist at the trial's point, without
    /// the defaults of all others; `None` if the search has no such trial.
    pub fn hyperparameters(&self, trial: TrialId) -> Option<Hyperparameters> {
        let Replicate { point, .. } = self.replicate(trial)?;
        match &self.source {
            Source::Grid(grid) => grid.point(&self.spec.space, point.into()),
            Source::Shuffled(grid, permutation) => grid.point(&self.spec.space, permutation.at(point).into()),
            Source::Drawn(order) => self.draw(order, point),
            Source::Listed => {
                let own = self.spec.points.get(usize::try_from(point).ok()?)?;
                Some(self.spec.shared().overlaid(own))
            }
        }
    }

    /// Every trial, in order.
    pub fn trials(&self) -> impl Iterator<Item = (TrialId, Hyperparameters)> {
        (0..self.spec.trial_count())
            .map(TrialId::new)
            .map_while(|trial| self.hyperparameters(trial).map(|hyperparameters| (trial, hyperparameters)))
    }

    /// A point whose hyperparameters are each drawn from a stream of their own, so that what one of them
    /// draws does not depend on which others the file names.
    fn draw(&self, order: &[usize], point: u64) -> Option<Hyperparameters> {
        let stream = Stream::new(self.spec.seed).named("random").numbered(point);
        let space = &self.spec.space;
        let mut drawn = Hyperparameters::new();
        let mut alive = Alive::ALL;
        for &position in order {
            let dimension = &space.dimensions[position];
            let value = if alive.has(position) {
                let mut generator = stream.clone().named(dimension.parameter.name()).generator();
                Some(draw::value(dimension.parameter, &dimension.distribution, &mut generator)?)
            } else {
                None
            };
            alive = alive.after(space, position, value.as_ref());
            if let Some(value) = value {
                drawn.set(dimension.parameter, &value).ok()?;
            }
        }
        Some(drawn)
    }
}

fn drawn(spec: &SearchSpec) -> Source {
    Source::Drawn(spec.space.order())
}

fn shuffled(spec: &SearchSpec, grid: Grid) -> Source {
    match u64::try_from(grid.size()) {
        Ok(size) if u128::from(size) <= LARGEST_SHUFFLED => {
            let permutation = Permutation::new(size, &Stream::new(spec.seed).named("random").named("order"));
            Source::Shuffled(grid, permutation)
        }
        _ => drawn(spec),
    }
}
