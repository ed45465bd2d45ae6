//! Lanes that are trained together get what each would get alone.

use super::*;

#[test]
fn each_lane_gets_the_bits_that_it_would_get_alone() {
    let dataset = dataset(70, 10);
    for (model, optimizer, normalization) in [
        ("fcn", "sgd", "none"),
        ("fcn", "adam", "batch"),
        ("fcn", "rmsprop", "layer"),
        ("lenet", "adamw", "batch"),
        ("lenet", "sgd", "layer"),
        ("fcn", "adagrad", "none"),
        ("fcn", "adadelta", "none"),
        ("fcn", "nadam", "batch"),
        ("fcn", "lamb", "layer"),
        ("fcn", "lion", "none"),
        ("fcn", "sgd", "group"),
        ("lenet", "adam", "group"),
        ("lenet", "sgd", "instance"),
    ] {
        let common =
            [("model", model), ("optimizer", optimizer), ("normalization", normalization), ("epochs", "1")];
        let own = [
            vec![
                ("learning_rate", "0.01"),
                ("momentum", "0.9"),
                ("dropout", "0.5"),
                ("spatial_dropout", "0.3"),
            ],
            vec![("learning_rate", "0.003"), ("label_smoothing", "0.2"), ("initialization", "xavier_normal")],
            vec![
                ("initialization", "pytorch_default"),
                ("weight_decay", "0.1"),
                ("beta1", "0.8"),
                ("epsilon", "1e-5"),
                ("nesterov", "true"),
                ("momentum", "0.5"),
            ],
        ];
        let settings: Vec<_> = own.iter().map(|own| [merged(&common), own.clone()].concat()).collect();
        let seeds = |lane: u64| Seeds { trial: lane, ..Seeds::from_one(1) };
        let trials: Vec<(Settings<'_>, Seeds)> =
            settings.iter().zip(0..).map(|(settings, lane)| (&settings[..], seeds(lane))).collect();
        let together = run(&trials, &dataset);
        for (lane, trial) in trials.iter().enumerate() {
            let alone = run(&[*trial], &dataset);
            assert_eq!(
                alone.reports[0], together.reports[lane],
                "{model} {optimizer}: reports of lane {lane}"
            );
            assert_eq!(
                alone.tensors[0], together.tensors[lane],
                "{model} {optimizer}: weights of lane {lane}"
            );
        }
    }
}

#[test]
fn lanes_with_schedules_clipping_penalties_and_averages_get_the_bits_that_they_would_get_alone() {
    let dataset = dataset(70, 10);
    for (optimizer, normalization) in [("sgd", "batch"), ("rmsprop", "layer"), ("adamw", "none")] {
        let common = [("optimizer", optimizer), ("normalization", normalization), ("epochs", "3")];
        let own: [Settings<'_>; 9] = [
            &[],
            &[("schedule", "step"), ("schedule_step_epochs", "1"), ("momentum", "0.9"), ("centered", "true")],
            &[("schedule", "exponential"), ("schedule_gamma", "0.5"), ("clip_value", "0.01")],
            &[("schedule", "cosine"), ("warmup_epochs", "1.5"), ("clip_norm", "0.1")],
            &[("schedule", "one_cycle"), ("l1", "0.01"), ("clip_norm", "0.1")],
            &[("schedule", "reduce_on_plateau"), ("schedule_patience", "0"), ("learning_rate", "0.1")],
            &[("ema_decay", "0.9")],
            &[("ema_decay", "0.5"), ("weight_decay", "0.1"), ("weight_decay_exempt", "bias_and_norm")],
            &[("weight_decay", "0.1")],
        ];
        let settings: Vec<_> = own.iter().map(|own| [merged(&common), own.to_vec()].concat()).collect();
        let trials: Vec<(Settings<'_>, Seeds)> =
            settings.iter().map(|settings| (&settings[..], Seeds::from_one(1))).collect();
        let together = run(&trials, &dataset);
        for (lane, trial) in trials.iter().enumerate() {
            let alone = run(&[*trial], &dataset);
            assert_eq!(alone.reports[0], together.reports[lane], "{optimizer}: reports of {:?}", own[lane]);
            assert_eq!(alone.tensors[0], together.tensors[lane], "{optimizer}: weights of {:?}", own[lane]);
            assert!(
                lane == 0 || together.tensors[lane] != together.tensors[0],
                "{optimizer}: {:?} changes nothing",
                own[lane]
            );
        }
    }
}

#[test]
fn each_lane_of_every_model_gets_the_bits_that_it_would_get_alone() {
    let (small, medium, tiny) = (dataset(70, 10), dataset_of(16, 15, 40, 10), dataset(6, 3));
    let alexnet = ("model", "alexnet");
    let units = ("classifier_units", "16");
    for (model, dataset) in [
        (&[("model", "dnn"), ("normalization", "batch")][..], &small),
        (&[("model", "dnn"), ("residual", "true"), ("normalization", "layer")], &small),
        (&[alexnet, units], &medium),
        // One image has a thousand times the work.
        (&[alexnet, units, ("alexnet_geometry", "original"), ("batch_size", "5")], &tiny),
        (&[("model", "vgg"), ("normalization", "batch")], &small),
        (&[("model", "resnet"), ("channels", "8,16"), ("normalization", "batch")], &small),
        (&[("model", "resnet"), ("channels", "16,8"), ("normalization", "none")], &small),
        (&[("model", "wide_resnet"), ("widen_factor", "1"), ("normalization", "layer")], &small),
    ] {
        let own = [
            &[("learning_rate", "0.01"), ("dropout", "0.5")][..],
            &[("learning_rate", "0.003"), ("label_smoothing", "0.2"), ("initialization", "xavier_normal")],
        ];
        let settings = own.map(|own| [&merged(&[("epochs", "1")]), model, own].concat());
        let seeds = |trial: u64| Seeds { trial, ..Seeds::from_one(1) };
        let trials = [(&settings[0][..], seeds(0)), (&settings[1][..], seeds(1))];
        let together = run(&trials, dataset);
        for (lane, trial) in trials.into_iter().enumerate() {
            let alone = run(&[trial], dataset);
            assert_eq!(alone.reports[0], together.reports[lane], "{model:?}: reports of lane {lane}");
            assert_eq!(alone.tensors[0], together.tensors[lane], "{model:?}: weights of lane {lane}");
        }
    }
}
