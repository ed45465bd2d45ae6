//! What keeps a model from learning its images by heart.

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
        name: "weight_decay",
        domain: Domain::Number { min: Bound::Included(0.0), max: Bound::Included(1.0) },
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "L2 penalty added to the gradient; with adamw decoupled from it. Applies to every parameter, as in PyTorch",
    },
    Definition {
        name: "label_smoothing",
        domain: ZERO_TO_BELOW_ONE,
        default: DefaultValue::Number(0.0),
        used_with: None,
        meaning: "share of the target's probability that is spread evenly over all classes in training",
    },
];
