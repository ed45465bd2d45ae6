//! The fully connected network: for each hidden size linear, normalisation, ReLU, dropout; then
//! linear to the classes.
//!
//! Parameters without normalisation: for 784-256-128-10, 784·256 + 256 + 256·128 + 128 + 128·10 + 10 = 235,146.

use super::{ModelError, Stack};

pub(super) fn build(stack: &mut Stack<'_>, hidden: &[usize], classes: usize) -> Result<(), ModelError> {
    for &units in hidden {
        stack.hidden(units)?;
    }
    stack.output(classes)
}
