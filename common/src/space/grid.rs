//! The points of a finite space, counted and numbered without listing them.
//!
//! Points are ordered as nested loops over the dimensions would make them: the first dimension
//! slowest, the last fastest, each in the order of its values. A dimension that others depend on
//! comes before them, whatever the file's order. Where a condition does not hold, its dimension has
//! no loop, so that no point comes twice.
//!
//! The loops are kept as a graph. Below a value of a dimension lies a node that stands for the rest
//! of the loops; values that leave the same dimensions in place share that node, and each node knows
//! how many points lie below it. A point's number is then unravelled in one walk down.

use std::collections::HashMap;

use crate::hyperparameter::{Hyperparameters, Value};

use super::Space;

/// The most nodes, and the most branches of all nodes together, that conditions may make of a space.
const MAX_NODES: usize = 50_000;
const MAX_BRANCHES: usize = 1_000_000;

/// Which of the dimensions that have no value yet can still exist at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alive(u64);

impl Alive {
    /// Every dimension, before any has a value.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the dimension at this position of the space can exist.
    pub const fn has(self, position: usize) -> bool {
        self.0 >> position & 1 == 1
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What can still exist once the dimension at this position has a value, or is known not to exist.
    #[must_use]
    pub fn after(self, space: &Space, position: usize, value: Option<&Value>) -> Self {
        let parameter = space.dimensions[position].parameter;
        let mut alive = self.0 & !(1 << position);
        for (index, dimension) in space.dimensions.iter().enumerate() {
            let holds = dimension
                .when
                .iter()
                .filter(|condition| condition.parameter == parameter)
                .all(|condition| value.is_some_and(|value| condition.values.contains(value)));
            if !holds {
                alive &= !(1 << index);
            }
        }
        Self(alive)
    }
}

impl Space {
    /// Positions of the dimensions in the order in which they get their values: the file's, but what
    /// a dimension depends on before it. Dimensions that depend on each other in a circle are left out.
    pub fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.dimensions.len());
        loop {
            let ready = |position: &usize| {
                !order.contains(position)
                    && self.dimensions[*position].when.iter().all(|condition| {
                        self.position(condition.parameter)
                            .is_some_and(|controller| order.contains(&controller))
                    })
            };
            match (0..self.dimensions.len()).find(ready) {
                Some(position) => order.push(position),
                None => return order,
            }
        }
    }
}

/// The numbered points of a finite space.
#[derive(Clone, Debug)]
pub struct Grid {
    order: Vec<usize>,
    nodes: Vec<Node>,
    root: usize,
}

/// The loops from some depth on.
#[derive(Clone, Debug)]
enum Node {
    /// No loop is left: one point.
    Point,
    /// A loop whose every value leads to the same rest.
    Even { depth: usize, rest: usize, size: u128 },
    /// A loop whose values lead to different rests: for each value the number of points up to and
    /// including it, and the rest.
    Fork { depth: usize, branches: Vec<(u128, usize)> },
}

impl Node {
    fn size(&self) -> u128 {
        match self {
            Self::Point => 1,
            Self::Even { size, .. } => *size,
            Self::Fork { branches, .. } => branches.last().map_or(0, |(total, _)| *total),
        }
    }
}

impl Grid {
    /// Numbers the points of a space. `None` if it is not finite, or if its conditions make too many
    /// different combinations to keep.
    pub fn new(space: &Space) -> Option<Self> {
        if !space.is_finite() || space.dimensions.len() > 64 {
            return None;
        }
        let mut builder = Builder {
            space,
            order: space.order(),
            leaves: decided(space),
            nodes: vec![Node::Point],
            branches: 0,
            known: HashMap::new(),
        };
        let root = builder.node(0, Alive::ALL)?;
        Some(Self { order: builder.order, nodes: builder.nodes, root })
    }

    /// How many points there are. A number too large for its type stays at the largest.
    pub fn size(&self) -> u128 {
        self.nodes[self.root].size()
    }

    /// The point of this number, counted from 0. `space` is the one that the grid was made for.
    pub fn point(&self, space: &Space, number: u128) -> Option<Hyperparameters> {
        if number >= self.size() {
            return None;
        }
        let mut point = Hyperparameters::new();
        let (mut node, mut number) = (self.root, number);
        loop {
            let (depth, index) = match &self.nodes[node] {
                Node::Point => return Some(point),
                Node::Even { depth, rest, .. } => {
                    let below = self.nodes[*rest].size();
                    let index = number / below;
                    number %= below;
                    node = *rest;
                    (*depth, u64::try_from(index).ok()?)
                }
                Node::Fork { depth, branches } => {
                    let index = branches.partition_point(|(total, _)| *total <= number);
                    number -= if index == 0 { 0 } else { branches[index - 1].0 };
                    node = branches.get(index)?.1;
                    (*depth, index as u64)
                }
            };
            let dimension = &space.dimensions[self.order[depth]];
            point
                .set(dimension.parameter, &dimension.distribution.value(dimension.parameter, index)?)
                .ok()?;
        }
    }
}

/// For each dimension that others depend on, what each of its values leaves of all dimensions.
fn decided(space: &Space) -> Vec<Option<Vec<Alive>>> {
    let decides = |parameter| {
        let mut conditions = space.dimensions.iter().flat_map(|dimension| &dimension.when);
        conditions.any(|condition| condition.parameter == parameter)
    };
    let leaves = |position: usize| {
        let dimension = &space.dimensions[position];
        (0..dimension.distribution.size()?)
            .map(|index| dimension.distribution.value(dimension.parameter, index))
            .map(|value| Some(Alive::ALL.after(space, position, value.as_ref())))
            .collect()
    };
    (0..space.dimensions.len())
        .map(|position| decides(space.dimensions[position].parameter).then(|| leaves(position)).flatten())
        .collect()
}

struct Builder<'a> {
    space: &'a Space,
    order: Vec<usize>,
    /// For each dimension that others depend on, what each of its values leaves of them.
    leaves: Vec<Option<Vec<Alive>>>,
    nodes: Vec<Node>,
    branches: usize,
    known: HashMap<(usize, Alive), usize>,
}

impl Builder<'_> {
    /// The node for the loops from `depth` on, where these dimensions exist.
    fn node(&mut self, depth: usize, alive: Alive) -> Option<usize> {
        let Some(&position) = self.order.get(depth) else {
            return Some(0);
        };
        if let Some(&known) = self.known.get(&(depth, alive)) {
            return Some(known);
        }
        let dimension = &self.space.dimensions[position];
        let node = if !alive.has(position) {
            let rest = self.node(depth + 1, alive.after(self.space, position, None))?;
            self.known.insert((depth, alive), rest);
            return Some(rest);
        } else if let Some(leaves) = self.leaves[position].take() {
            let mut branches = Vec::new();
            let mut total = 0u128;
            self.branches += leaves.len();
            for left in &leaves {
                let rest = self.node(depth + 1, alive.and(*left))?;
                total = total.saturating_add(self.nodes[rest].size());
                branches.push((total, rest));
            }
            self.leaves[position] = Some(leaves);
            Node::Fork { depth, branches }
        } else {
            let rest = self.node(depth + 1, alive.after(self.space, position, None))?;
            let values = dimension.distribution.size()?;
            let size = self.nodes[rest].size().saturating_mul(u128::from(values));
            Node::Even { depth, rest, size }
        };
        if self.nodes.len() >= MAX_NODES || self.branches > MAX_BRANCHES {
            return None;
        }
        self.nodes.push(node);
        self.known.insert((depth, alive), self.nodes.len() - 1);
        Some(self.nodes.len() - 1)
    }
}
