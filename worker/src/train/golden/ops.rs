//! Ops, forward and backward, in both forms and both precisions.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::{Form, Golden, ROUNDING, check_op, device, fixture};
use crate::train::ops::convolution::{self, convolution};
use crate::train::ops::cross_entropy::{self, cross_entropy};
use crate::train::ops::layer_norm::{self, layer_norm};
use crate::train::ops::linear::{self, linear};
use crate::train::ops::max_pool::{self, max_pool};
use crate::train::ops::{Activation, Leaf, Tape, Window};

use Activation::{Identity, Relu};

#[derive(Clone, Copy, Debug)]
enum Op {
    Linear(Activation),
    Convolution(Window, Activation),
    MaxPool(Window),
    LayerNorm(Activation),
    CrossEntropy { smoothing: f64 },
}

const TABLE: [(&str, Op); 17] = [
    ("linear", Op::Linear(Identity)),
    ("linear with ReLU", Op::Linear(Relu)),
    ("linear over images", Op::Linear(Identity)),
    ("convolution 5x5, padding 2", Op::Convolution(window(5, 1, 2), Identity)),
    ("convolution 5x5, padding 2, with ReLU", Op::Convolution(window(5, 1, 2), Relu)),
    ("convolution 3x3, stride 2, padding 1", Op::Convolution(window(3, 2, 1), Identity)),
    ("convolution 3x3, no padding", Op::Convolution(window(3, 1, 0), Identity)),
    ("max pool 2x2", Op::MaxPool(window(2, 2, 0))),
    ("max pool 3x3, stride 2", Op::MaxPool(window(3, 2, 0))),
    ("max pool 3x3, stride 2, padding 1", Op::MaxPool(window(3, 2, 1))),
    (TIES, Op::MaxPool(window(3, 2, 0))),
    ("layer norm over features", Op::LayerNorm(Identity)),
    ("layer norm over features, with ReLU", Op::LayerNorm(Relu)),
    ("layer norm over images", Op::LayerNorm(Identity)),
    ("cross-entropy, label smoothing 0.0", Op::CrossEntropy { smoothing: 0.0 }),
    ("cross-entropy, label smoothing 0.1", Op::CrossEntropy { smoothing: 0.1 }),
    ("cross-entropy of large logits", Op::CrossEntropy { smoothing: 0.1 }),
];

/// Pooling in candle's ops, by its documentation, treats equal numbers otherwise than PyTorch.
const TIES: &str = "max pool 3x3, stride 2, with ties";

const fn window(size: usize, stride: usize, padding: usize) -> Window {
    Window { size, stride, padding }
}

impl Op {
    fn run(
        self,
        form: Form,
        x: &Tensor,
        leaves: &[Leaf<'_>],
        labels: Option<&Golden>,
        tape: Option<&mut Tape>,
    ) -> Result<Tensor> {
        let labels: Arc<[u8]> =
            labels.into_iter().flat_map(|labels| &labels.values).map(|&label| label as u8).collect();
        match (self, form, leaves) {
            (Self::Linear(activation), Form::Fused, &[weight, bias]) => {
                linear(x, weight, bias, activation, tape)
            }
            (Self::Linear(activation), Form::Composed, [weight, bias]) => {
                linear::composed(x, weight.tensor, bias.tensor, activation)
            }
            (Self::Convolution(window, activation), Form::Fused, &[weight, bias]) => {
                convolution(x, weight, bias, window, activation, tape)
            }
            (Self::Convolution(window, activation), Form::Composed, [weight, bias]) => {
                convolution::composed(x, weight.tensor, bias.tensor, window, activation)
            }
            (Self::LayerNorm(activation), Form::Fused, &[weight, bias]) => {
                layer_norm(x, weight, bias, activation, tape)
            }
            (Self::LayerNorm(activation), Form::Composed, [weight, bias]) => {
                layer_norm::composed(x, weight.tensor, bias.tensor, activation)
            }
            (Self::MaxPool(window), Form::Fused, []) => max_pool(x, window, tape),
            (Self::MaxPool(window), Form::Composed, []) => max_pool::composed(x, window),
            (Self::CrossEntropy { smoothing }, Form::Fused, []) => {
                cross_entropy(x, &labels, &[smoothing], tape)
            }
            (Self::CrossEntropy { smoothing }, Form::Composed, []) => {
                cross_entropy::composed(x, &labels, &[smoothing])
            }
            _ => panic!("{self:?} does not take {} parameters", leaves.len()),
        }
    }
}

#[test]
fn results_and_gradients_are_pytorchs() {
    let fixture = fixture!("ops");
    fixture.assert_rows(TABLE.map(|(row, _)| row));
    for (row, op) in TABLE {
        let forms = if row == TIES { &[Form::Fused][..] } else { &[Form::Fused, Form::Composed] };
        for &form in forms {
            for rounding in ROUNDING {
                // A GPU has kernels for f32 alone: in f64 it takes candle's ops.
                if row == TIES && rounding.0 == DType::F64 && !device().is_cpu() {
                    continue;
                }
                let labels = fixture.find(row, "labels");
                check_op(&fixture, row, form, rounding, |form, x, leaves, tape| {
                    op.run(form, x, leaves, labels, tape)
                });
            }
        }
    }
}
