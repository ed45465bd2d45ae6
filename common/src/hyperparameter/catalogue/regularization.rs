//! What keeps a model from learning its images by heart.

use super::model::CONVOLUTIONAL;
use super::{Definition, ZERO_TO_BELOW_ONE};
use crate::hyperparameter::{Bound, DefaultValue, Domain};

pub(super) static REGULARIZATION: &[Definition] = &[
    Definition {
        name: "dropout",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "probability with which a unit is dropped in training: of hidden fully connected layers, of resnet's features, \
                  between the convolutions of wide_resnet's blocks",
    },
    Definition {
        name: "spatial_dropout",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: Some(("model", CONVOLUTIONAL)),
        meaning: "probability with which a whole channel of a convolution's output is dropped in training",
    },
    Definition {
        name: "weight_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "L2 penalty added to the gradient; with adamw, lamb and lion decoupled from it. Applies to every parameter, as in PyTorch",
    },
    Definition {
        name: "weight_decay_exempt",
        domain: Domain::Choice(&["none", "bias_and_norm"]),
        default: DefaultValue::Choice("none"),
        used_with: None,
        meaning: "what weight decay leaves alone: nothing, or biases and the parameters of normalisations",
    },
    Definition {
        name: "l1",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "L1 penalty: added to the gradient of each weight in the direction of its sign; biases and normalisations have none",
    },
    Definition {
        name: "ema_decay",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "what evaluation and export use in place of the weights: their exponential moving average, of which each step keeps this part; 0 is off",
    },
    Definition {
        name: "label_smoothing",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "share of the target's probability that is spread evenly over all classes in training",
    },
];
