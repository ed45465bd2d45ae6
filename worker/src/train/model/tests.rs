//! Names, shapes, sizes and gradients of the models.

use super::*;
use crate::train::hyper::Normalization;
use crate::train::ops::cross_entropy::cross_entropy;
use crate::train::ops::testing::flat;
use crate::train::params::{Kind, Role};
use crate::train::rng::Moment;
use crate::train::testing::group;
use fittingroom_common::hyperparameter::{Domain, Parameter};
use fittingroom_common::trial::Seeds;

const IMAGES: ImageShape = ImageShape { height: 28, width: 28, classes: 10 };

fn model(settings: &[(&str, &str)], images: ImageShape) -> Result<Model, ModelError> {
    let group = group(&[(settings, Seeds::from_one(3))]);
    Model::new(&group.shape, &group.lanes, images, &Device::Cpu)
}

#[test]
fn tensors_have_pytorchs_names_and_shapes() {
    for (name, settings, expected) in [
        (
            "fcn",
            &[("hidden_sizes", "300,200"), ("normalization", "batch")][..],
            "fc1.weight[300, 784] fc1.bias[300] norm1.weight[300] norm1.bias[300] norm1.running_mean[300] \
             norm1.running_var[300] fc2.weight[200, 300] fc2.bias[200] norm2.weight[200] norm2.bias[200] \
             norm2.running_mean[200] norm2.running_var[200] fc3.weight[10, 200] fc3.bias[10]",
        ),
        (
            "lenet",
            &[("model", "lenet"), ("normalization", "layer")][..],
            "conv1.weight[32, 1, 5, 5] conv1.bias[32] norm1.weight[32, 28, 28] norm1.bias[32, 28, 28] \
             conv2.weight[64, 32, 5, 5] conv2.bias[64] norm2.weight[64, 14, 14] norm2.bias[64, 14, 14] \
             fc1.weight[256, 3136] fc1.bias[256] norm3.weight[256] norm3.bias[256] \
             fc2.weight[128, 256] fc2.bias[128] norm4.weight[128] norm4.bias[128] fc3.weight[10, 128] fc3.bias[10]",
        ),
        (
            "dnn",
            &[("model", "dnn"), ("depth", "2"), ("width", "64")],
            "fc1.weight[64, 784] fc1.bias[64] fc2.weight[64, 64] fc2.bias[64] fc3.weight[10, 64] fc3.bias[10]",
        ),
        (
            "dnn with shortcuts",
            &[
                ("model", "dnn"),
                ("depth", "2"),
                ("width", "64"),
                ("residual", "true"),
                ("normalization", "layer"),
            ],
            "fc1.weight[64, 784] fc1.bias[64] norm1.weight[64] norm1.bias[64] \
             fc2.weight[64, 64] fc2.bias[64] norm2.weight[64] norm2.bias[64] fc3.weight[10, 64] fc3.bias[10]",
        ),
        (
            "alexnet",
            &[("model", "alexnet"), ("classifier_units", "32")],
            "conv1.weight[64, 1, 3, 3] conv1.bias[64] conv2.weight[192, 64, 3, 3] conv2.bias[192] \
             conv3.weight[384, 192, 3, 3] conv3.bias[384] conv4.weight[256, 384, 3, 3] conv4.bias[256] \
             conv5.weight[256, 256, 3, 3] conv5.bias[256] fc1.weight[32, 1024] fc1.bias[32] \
             fc2.weight[32, 32] fc2.bias[32] fc3.weight[10, 32] fc3.bias[10]",
        ),
        (
            "the original alexnet",
            &[("model", "alexnet"), ("alexnet_geometry", "original"), ("classifier_units", "32")],
            "conv1.weight[96, 1, 11, 11] conv1.bias[96] conv2.weight[256, 96, 5, 5] conv2.bias[256] \
             conv3.weight[384, 256, 3, 3] conv3.bias[384] conv4.weight[384, 384, 3, 3] conv4.bias[384] \
             conv5.weight[256, 384, 3, 3] conv5.bias[256] fc1.weight[32, 9216] fc1.bias[32] \
             fc2.weight[32, 32] fc2.bias[32] fc3.weight[10, 32] fc3.bias[10]",
        ),
        (
            "vgg",
            &[("model", "vgg")],
            "conv1.weight[64, 1, 3, 3] conv1.bias[64] conv2.weight[64, 64, 3, 3] conv2.bias[64] \
             conv3.weight[128, 64, 3, 3] conv3.bias[128] conv4.weight[128, 128, 3, 3] conv4.bias[128] \
             conv5.weight[256, 128, 3, 3] conv5.bias[256] conv6.weight[256, 256, 3, 3] conv6.bias[256] \
             fc1.weight[512, 2304] fc1.bias[512] fc2.weight[10, 512] fc2.bias[10]",
        ),
        (
            "resnet",
            &[("model", "resnet"), ("channels", "4,6"), ("blocks", "1"), ("normalization", "layer")],
            "conv1.weight[4, 1, 3, 3] conv1.bias[4] norm1.weight[4, 28, 28] norm1.bias[4, 28, 28] \
             conv2.weight[4, 4, 3, 3] conv2.bias[4] norm2.weight[4, 28, 28] norm2.bias[4, 28, 28] \
             conv3.weight[4, 4, 3, 3] conv3.bias[4] norm3.weight[4, 28, 28] norm3.bias[4, 28, 28] \
             conv4.weight[6, 4, 3, 3] conv4.bias[6] norm4.weight[6, 14, 14] norm4.bias[6, 14, 14] \
             conv5.weight[6, 6, 3, 3] conv5.bias[6] shortcut1.weight[6, 4, 1, 1] shortcut1.bias[6] \
             norm5.weight[6, 14, 14] norm5.bias[6, 14, 14] fc1.weight[10, 6] fc1.bias[10]",
        ),
        (
            "wide_resnet",
            &[("model", "wide_resnet"), ("widen_factor", "1"), ("blocks", "1")],
            "conv1.weight[16, 1, 3, 3] conv1.bias[16] \
             conv2.weight[16, 16, 3, 3] conv2.bias[16] conv3.weight[16, 16, 3, 3] conv3.bias[16] \
             conv4.weight[32, 16, 3, 3] conv4.bias[32] conv5.weight[32, 32, 3, 3] conv5.bias[32] \
             shortcut1.weight[32, 16, 1, 1] shortcut1.bias[32] \
             conv6.weight[64, 32, 3, 3] conv6.bias[64] conv7.weight[64, 64, 3, 3] conv7.bias[64] \
             shortcut2.weight[64, 32, 1, 1] shortcut2.bias[64] fc1.weight[10, 64] fc1.bias[10]",
        ),
    ] {
        let model = model(settings, IMAGES).expect("fits");
        let named: Vec<String> =
            model.named.iter().map(|named| format!("{}{:?}", named.name, named.shape)).collect();
        assert_eq!(named.join(" "), expected, "{name}");
    }
}

#[test]
fn weights_of_linear_and_convolution_layers_alone_are_weights_to_regularisation() {
    for architecture in ["fcn", "lenet"] {
        for normalization in ["none", "batch", "layer"] {
            let settings = &[("model", architecture), ("normalization", normalization)];
            let model = model(settings, IMAGES).expect("fits");
            let named = model.named.iter().filter(|named| named.kind == Kind::Parameter);
            for (parameter, named) in model.parameters.iter().zip(named) {
                let is_weight = named.name.ends_with(".weight") && !named.name.contains("norm");
                let expected = if is_weight { Role::Weight } else { Role::BiasOrNorm };
                assert_eq!(parameter.role(), expected, "{architecture} {normalization} {}", named.name);
            }
        }
    }
}

#[test]
fn normalisations_by_groups_name_their_tensors_as_pytorch_does() {
    for (normalization, expected) in [
        (
            "group",
            "norm1.weight[32] norm1.bias[32] norm2.weight[64] norm2.bias[64] norm3.weight[256] norm3.bias[256] \
             norm4.weight[128] norm4.bias[128]",
        ),
        // None after linear layers.
        ("instance", "norm1.weight[32] norm1.bias[32] norm2.weight[64] norm2.bias[64]"),
    ] {
        let model = model(&[("model", "lenet"), ("normalization", normalization)], IMAGES).expect("fits");
        let norms = model.named.iter().filter(|named| named.name.starts_with("norm"));
        let norms: Vec<String> = norms.map(|named| format!("{}{:?}", named.name, named.shape)).collect();
        assert_eq!(norms.join(" "), expected, "{normalization}");
    }
}

#[test]
fn groups_that_do_not_fit_are_refused_with_advice() {
    for (name, settings, said) in [
        (
            "not a divisor",
            &[("model", "lenet"), ("norm_groups", "7")][..],
            "= 7 cannot part the 32 channels of norm1, of 784 pixels each, into equal groups of at least 2 numbers. Take norm_groups = 4",
        ),
        ("more than channels", &[("model", "lenet"), ("norm_groups", "64")], "norm_groups = 32,"),
        (
            "a later layer",
            &[("hidden_sizes", "16,9")],
            "the 9 channels of norm2, of 1 pixels each, into equal groups of at least 2 numbers. Take norm_groups = 3,",
        ),
        ("single numbers", &[("hidden_sizes", "8")], "norm_groups = 4,"),
        ("a single unit", &[("hidden_sizes", "1")], "or another normalization"),
    ] {
        let built = model(&[&[("normalization", "group")], settings].concat(), IMAGES);
        let message = built.map(|_| ()).expect_err(name).to_string();
        assert!(message.contains(said), "{name}: {message}");
    }
    let mut extent = Extent { height: 1, width: 1, channels: 5 };
    let error = extent.groups(Normalization::Instance, "norm9").expect_err("a single pixel");
    assert!(error.to_string().contains("norm9 gets channels of a single pixel"), "{error}");
    extent.width = 2;
    assert_eq!(extent.groups(Normalization::Instance, "norm9").expect("fits"), Some(5));
}

#[test]
fn the_catalogue_knows_which_models_have_channels_to_drop() {
    let definition = |name| Parameter::find(name).expect("known").definition();
    let Domain::Choice(models) = definition("model").domain else { panic!("a choice") };
    let (_, convolutional) = definition("spatial_dropout").used_with.expect("of some models");
    for architecture in models {
        let model = model(&[("model", architecture), ("spatial_dropout", "0.5")], IMAGES).expect("fits");
        let drops = model.layers.iter().any(|layer| matches!(layer, Layer::SpatialDropout { .. }));
        assert_eq!(drops, convolutional.contains(architecture), "{architecture}");
    }
}

#[test]
fn biases_begin_where_the_kind_of_layer_says() {
    let biases = |settings: &[(&str, &str)]| {
        let model = model(&[&[("model", "lenet")], settings].concat(), IMAGES).expect("fits");
        let biases = model.named.iter().filter(|named| named.name.ends_with(".bias"));
        biases.map(|named| (named.name.clone(), flat(&named.values))).collect::<Vec<_>>()
    };
    let given = [("initial_linear_bias", "0.5"), ("initial_convolution_bias", "-0.25")];
    for (name, values) in biases(&given) {
        let expected = if name.starts_with("conv") { -0.25 } else { 0.5 };
        assert!(values.iter().all(|value| *value == expected), "{name}");
    }
    // PyTorch's own: uniform up to 1 / sqrt(fan_in) of their weights, whatever is said.
    let fans = [25.0, 800.0, 3136.0, 256.0, 128.0];
    let default = biases(&[&given[..], &[("initialization", "pytorch_default")]].concat());
    for ((name, values), fan) in default.iter().zip(fans) {
        let bound = 1.0 / f64::sqrt(fan);
        let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        assert!(largest <= bound * (1.0 + 1e-7) && largest > 0.7 * bound, "{name}: {largest}, {bound}");
    }
}

#[test]
fn orthogonal_weights_are_orthonormal_times_the_gain() {
    let settings = &[("model", "lenet"), ("initialization", "orthogonal"), ("initialization_gain", "1.5")];
    let model = model(settings, IMAGES).expect("fits");
    let weights = model.named.iter().filter(|named| named.name.ends_with(".weight"));
    for named in weights.filter(|named| !named.name.starts_with("norm")) {
        let (_, rows, columns) = named.values.dims3().expect("a matrix");
        let matrix = named.values.get(0).and_then(|x| x.to_dtype(candle_core::DType::F64)).expect("f64");
        let wide = if rows < columns { matrix } else { matrix.t().expect("a matrix") };
        let square = wide.t().and_then(|transposed| wide.matmul(&transposed)).expect("a product");
        for (row, products) in square.to_vec2::<f64>().expect("f64").iter().enumerate() {
            for (column, product) in products.iter().enumerate() {
                let expected = if row == column { 1.5 * 1.5 } else { 0.0 };
                assert!((product - expected).abs() < 1e-6, "{} at {row} {column}: {product}", named.name);
            }
        }
    }
}

#[test]
fn every_parameter_of_every_model_gets_a_gradient() {
    let images = ImageShape { height: 16, width: 15, classes: 4 };
    let x = crate::train::ops::testing::numbers("images", &[1, 3, 16, 15, 1]);
    let x = x.to_dtype(candle_core::DType::F32).expect("float");
    for architecture in [
        &[("model", "fcn")][..],
        &[("model", "lenet")],
        &[("model", "dnn"), ("width", "32")],
        &[("model", "dnn"), ("width", "32"), ("residual", "true")],
        &[("model", "cnn"), ("channels", "4,6"), ("hidden_sizes", "8")],
        &[("model", "alexnet"), ("classifier_units", "32")],
        &[("model", "vgg")],
        &[("model", "resnet"), ("channels", "4,4,6")],
        &[("model", "wide_resnet"), ("widen_factor", "1")],
    ] {
        for normalization in ["none", "batch", "layer", "group", "instance"] {
            let own = [
                ("normalization", normalization),
                ("norm_groups", "2"),
                ("dropout", "0.2"),
                ("spatial_dropout", "0.2"),
            ];
            let settings = [architecture, &own].concat();
            let model = model(&settings, images).expect("fits");
            let mut tape = Tape::new();
            let logits = model.train(&x, Moment { epoch: 1, step: 0 }, &mut tape).expect("forward");
            assert_eq!(logits.dims(), [1, 3, 4]);
            let labels = [0, 1, 3].into();
            let loss = cross_entropy(&logits, &labels, &[0.1], Some(&mut tape)).expect("loss");
            tape.backward(&loss).expect("backward");
            let named = model.named.iter().filter(|named| !named.name.contains("running"));
            for (parameter, named) in model.parameters.iter().zip(named) {
                let what = format!("{architecture:?} {normalization} {}", named.name);
                let gradient = parameter.take_gradient().expect(&what);
                assert_eq!(gradient.dims(), parameter.values().dims(), "{what}");
                let numbers = crate::train::ops::testing::flat(&gradient);
                // A bias before a normalisation of single channels has no effect: its gradient is 0
                // but for rounding.
                let without_effect = named.name.ends_with(".bias")
                    && (normalization == "batch"
                        || normalization == "instance" && !named.name.starts_with("fc"));
                assert!(without_effect || numbers.iter().any(|number| number.abs() > 1e-8), "{what} is zero");
            }
        }
    }
}

#[test]
fn images_that_the_pools_leave_nothing_of_are_refused() {
    for (name, height, width, fits) in [
        ("lenet", 4, 4, true),
        ("lenet", 4, 3, false),
        ("lenet", 1, 28, false),
        ("alexnet", 15, 15, true),
        ("alexnet", 15, 14, false),
        ("vgg", 1, 28, true),
        ("resnet", 1, 1, true),
        ("wide_resnet", 2, 3, true),
    ] {
        let images = ImageShape { height, width, classes: 2 };
        let built = model(&[("model", name), ("classifier_units", "8")], images);
        assert_eq!(built.is_ok(), fits, "{name} of {height}x{width}");
        if let Err(error) = built {
            assert!(error.to_string().contains("too small"), "{error}");
        }
    }
}

#[test]
fn shapes_parameters_and_multiply_adds_are_those_counted_by_hand() {
    for (name, settings, shapes, parameters, multiply_adds) in [
        ("dnn", &[("model", "dnn"), ("residual", "true")][..], "[28, 28, 1] [256] [10]", 400_906, 399_872),
        (
            "batch norm, whose running statistics are no parameters",
            &[("model", "fcn"), ("hidden_sizes", "300"), ("normalization", "batch")],
            "[28, 28, 1] [300] [10]",
            784 * 300 + 300 + 2 * 300 + 300 * 10 + 10,
            784 * 300 + 300 * 10,
        ),
        (
            "lenet",
            &[("model", "lenet")],
            "[28, 28, 1] [28, 28, 32] [14, 14, 32] [14, 14, 64] [7, 7, 64] [256] [128] [10]",
            889_354,
            784 * 32 * 25 + 196 * 64 * 800 + 3136 * 256 + 256 * 128 + 128 * 10,
        ),
        (
            "alexnet",
            &[("model", "alexnet")],
            "[28, 28, 1] [28, 28, 64] [13, 13, 64] [13, 13, 192] [6, 6, 192] [6, 6, 384] [6, 6, 256] \
             [2, 2, 256] [4096] [10]",
            23_271_114,
            117_126_144,
        ),
        (
            "the original alexnet",
            &[("model", "alexnet"), ("alexnet_geometry", "original"), ("classifier_units", "16")],
            "[28, 28, 1] [227, 227, 1] [55, 55, 96] [27, 27, 96] [27, 27, 256] [13, 13, 256] [13, 13, 384] \
             [13, 13, 256] [6, 6, 256] [16] [10]",
            // The convolutions, then the classifier.
            3_723_968 + 9216 * 16 + 16 + 16 * 16 + 16 + 16 * 10 + 10,
            1_006_357_344 + 9216 * 16 + 16 * 16 + 16 * 10,
        ),
        (
            "vgg",
            &[("model", "vgg")],
            "[28, 28, 1] [28, 28, 64] [14, 14, 64] [14, 14, 128] [7, 7, 128] [7, 7, 256] [3, 3, 256] [512] [10]",
            2_329_546,
            117_241_856,
        ),
        (
            "resnet",
            &[("model", "resnet")],
            "[28, 28, 1] [28, 28, 32] [14, 14, 64] [7, 7, 128] [128] [10]",
            694_922,
            80_508_672,
        ),
        (
            "wide_resnet",
            &[("model", "wide_resnet")],
            "[28, 28, 1] [28, 28, 16] [28, 28, 32] [14, 14, 64] [7, 7, 128] [128] [10]",
            690_698,
            77_184_512,
        ),
    ] {
        let outline = Outline::of(&group(&[(settings, Seeds::from_one(3))]).shape, IMAGES).expect("fits");
        let given: Vec<String> = outline.shapes.iter().map(|shape| format!("{shape:?}")).collect();
        assert_eq!(given.join(" "), shapes, "{name}");
        assert_eq!((outline.parameters, outline.multiply_adds), (parameters, multiply_adds), "{name}");
    }
}

#[test]
fn more_parameters_than_any_memory_are_an_error_before_one_is_drawn() {
    let widest = ["65536"; 64].join(",");
    for settings in [
        &[("model", "fcn"), ("hidden_sizes", &*widest)][..],
        &[("model", "dnn"), ("depth", "256"), ("width", "65536")],
    ] {
        let error = model(settings, IMAGES).expect_err("too large");
        assert!(matches!(error, ModelError::TooLarge { .. }), "{settings:?}: {error}");
    }
}
