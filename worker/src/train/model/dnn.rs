//! The deep fully connected network: `depth` hidden layers of `width` units, each linear,
//! normalisation, ReLU, dropout; then linear to the classes.
//!
//! With identity shortcuts, the hidden layers from the second on have their normalisation, ReLU and
//! dropout before them, as in He et al. (2016), and are added to their input; a last normalisation,
//! ReLU and dropout follow.
//!
//! Parameters without normalisation, either way: for four layers of 256 and images of 28x28,
//! 784·256 + 256 + 3·(256·256 + 256) + 256·10 + 10 = 400,906. Multiply-adds: the same without the
//! biases, 399,872.

use super::super::hyper::Shortcuts;
use super::{Activation, ModelError, Stack};

pub(super) fn build(
    stack: &mut Stack<'_>,
    depth: usize,
    width: usize,
    shortcuts: Shortcuts,
    classes: usize,
) -> Result<(), ModelError> {
    match shortcuts {
        Shortcuts::None => {
            for _ in 0..depth {
                stack.hidden(width)?;
            }
        }
        Shortcuts::Identity => {
            stack.leave_images();
            stack.linear(width, Activation::Identity)?;
            for _ in 1..depth {
                let hidden = |body: &mut Stack<'_>| {
                    body.pre_activation()?;
                    body.dropout();
                    body.linear(width, Activation::Identity)
                };
                stack.residual(hidden, |_| Ok(()))?;
            }
            stack.pre_activation()?;
            stack.dropout();
        }
    }
    stack.output(classes)
}
