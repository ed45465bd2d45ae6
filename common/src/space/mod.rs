//! The search file.

/// How the trials of a search are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every point of a finite space.
    Grid,
    /// Points drawn from the distributions.
    Random,
    /// The points that the file lists.
    Points,
}
