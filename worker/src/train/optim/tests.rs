//! What all rules have in common; their numbers are compared with PyTorch's in `train/golden/`.

use super::*;
use crate::train::hyper::{Exempt, MomentumForm};
use crate::train::ops::testing::{assert_close, flat, numbers};
use candle_core::DType;

const SETTINGS: UpdateSettings = UpdateSettings {
    learning_rate: 0.1,
    momentum: 0.9,
    momentum_form: MomentumForm::Plain,
    alpha: 0.99,
    centered: false,
    learning_rate_decay: 0.1,
    rho: 0.9,
    beta1: 0.9,
    beta2: 0.999,
    momentum_decay: 0.004,
    epsilon: 1e-8,
    weight_decay: 0.01,
    weight_decay_exempt: Exempt::None,
};

const KINDS: [OptimizerKind; 9] = [
    OptimizerKind::Sgd,
    OptimizerKind::RmsProp,
    OptimizerKind::Adagrad,
    OptimizerKind::Adadelta,
    OptimizerKind::Adam,
    OptimizerKind::AdamW,
    OptimizerKind::NAdam,
    OptimizerKind::Lamb,
    OptimizerKind::Lion,
];

type Form = fn(&[Rule], &Tensor, &Tensor, &[Tensor]) -> Result<()>;

/// Where three steps lead each lane, all from the same place by the same gradients.
fn trajectory(form: Form, kind: OptimizerKind, lanes: &[UpdateSettings]) -> Vec<Vec<f64>> {
    let of_lanes = |name: &str| {
        let one = numbers(name, &[1, 7]).to_dtype(DType::F32).expect("float");
        Tensor::cat(&vec![one; lanes.len()], 0).expect("alike")
    };
    let parameter = of_lanes("parameter");
    let state = [(); MOST_MOMENTS].map(|()| parameter.zeros_like().expect("alike"));
    let mut places = vec![Vec::new(); lanes.len()];
    for step in 1..=3 {
        let rule = |settings: &UpdateSettings| {
            let UpdateSettings { learning_rate, weight_decay, .. } = *settings;
            Rule::of(kind, settings, Now { step, learning_rate, weight_decay })
        };
        let rules: Vec<Rule> = lanes.iter().map(rule).collect();
        form(&rules, &parameter, &of_lanes(&format!("gradient {step}")), &state).expect("good");
        for (lane, places) in places.iter_mut().enumerate() {
            places.extend(flat(&parameter.get(lane).expect("there")));
        }
    }
    places
}

#[test]
fn both_forms_agree_and_each_lane_moves_by_its_own_numbers() {
    let lanes = [
        SETTINGS,
        UpdateSettings { learning_rate: 0.01, momentum: 0.0, weight_decay: 0.0, ..SETTINGS },
        UpdateSettings { momentum_form: MomentumForm::Nesterov, beta1: 0.5, rho: 0.5, ..SETTINGS },
        UpdateSettings { centered: true, epsilon: 1e-3, momentum_decay: 0.5, ..SETTINGS },
        UpdateSettings { centered: true, momentum: 0.0, beta2: 0.9, learning_rate_decay: 1.0, ..SETTINGS },
    ];
    for kind in KINDS {
        let together = trajectory(fused, kind, &lanes);
        let by_candle = trajectory(composed, kind, &lanes);
        for (lane, settings) in lanes.iter().enumerate() {
            let what = format!("{kind:?}, lane {lane}");
            assert_close(&what, &by_candle[lane], &together[lane], 1e-5);
            assert_eq!(trajectory(fused, kind, &[*settings])[0], together[lane], "{what}, alone");
        }
    }
}

#[test]
fn a_tensor_of_zeros_leaves_its_place_with_lamb() {
    for (name, form) in [("fused", fused as Form), ("composed", composed)] {
        let tensor = |value: f32| Tensor::full(value, (1, 2), &Device::Cpu).and_then(|x| x.contiguous());
        let (parameter, gradient) = (tensor(0.0).expect("good"), tensor(3.0).expect("good"));
        let state = [tensor(0.0).expect("good"), tensor(0.0).expect("good")];
        let now = Now { step: 1, learning_rate: 0.25, weight_decay: 0.0 };
        let rules = [Rule::of(OptimizerKind::Lamb, &SETTINGS, now)];
        form(&rules, &parameter, &gradient, &state).expect("good");
        assert_close(name, &flat(&parameter), &[-0.25, -0.25], 1e-6);
    }
}

#[test]
fn gradients_that_hardly_vary_do_not_make_a_centered_rmsprop_diverge() {
    let settings = UpdateSettings { centered: true, alpha: 0.5, weight_decay: 0.0, ..SETTINGS };
    for (name, form) in [("fused", fused as Form), ("composed", composed)] {
        let tensor = |value: f32| Tensor::full(value, (1, 1), &Device::Cpu).and_then(|x| x.contiguous());
        let (parameter, gradient) = (tensor(0.0).expect("good"), tensor(0.1).expect("good"));
        let state = [(); MOST_MOMENTS].map(|()| tensor(0.0).expect("good"));
        for step in 1..=100 {
            let now = Now { step, learning_rate: 1e-9, weight_decay: 0.0 };
            let rules = [Rule::of(OptimizerKind::RmsProp, &settings, now)];
            form(&rules, &parameter, &gradient, &state).expect("good");
        }
        assert!(flat(&parameter)[0].is_finite(), "{name}");
    }
}

#[test]
fn moments_of_a_unit_that_is_never_active_do_not_stay_subnormal() {
    const SMALL: f32 = 1e-37;
    // Adagrad's sum never decays, and Lion goes by the sign of its mean, however small that is.
    let kinds =
        KINDS.into_iter().filter(|kind| !matches!(kind, OptimizerKind::Adagrad | OptimizerKind::Lion));
    let forms = [(true, 0.9), (false, 0.9), (false, 0.0)];
    for (kind, (centered, momentum)) in kinds.flat_map(|kind| forms.map(|form| (kind, form))) {
        if kind == OptimizerKind::Sgd && momentum == 0.0 {
            continue; // It keeps nothing.
        }
        let settings = UpdateSettings { centered, momentum, alpha: 0.9, beta2: 0.9, ..SETTINGS };
        let tensor = |value: f32| Tensor::full(value, (1, 40), &Device::Cpu).and_then(|x| x.contiguous());
        let (parameter, gradient) = (tensor(0.5).expect("good"), tensor(0.0).expect("good"));
        let state = [(); MOST_MOMENTS].map(|()| tensor(SMALL).expect("good"));
        for step in 1..=100 {
            let now = Now { step, learning_rate: 1e-3, weight_decay: 0.0 };
            fused(&[Rule::of(kind, &settings, now)], &parameter, &gradient, &state).expect("good");
        }
        let decayed = state.iter().flat_map(flat).filter(|moment| *moment != f64::from(SMALL));
        let kept: Vec<f64> = decayed.collect();
        assert!(
            kept.len() >= 40 && kept.iter().all(|moment| *moment == 0.0),
            "{settings:?}, {kind:?}: {kept:?}"
        );
        assert_eq!(flat(&parameter), [0.5; 40], "{kind:?}");
    }
}
