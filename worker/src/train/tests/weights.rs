//! Training that begins with weights from elsewhere.

use candle_core::Device;

use super::*;

#[test]
fn a_run_from_the_weights_that_another_drew_equals_it() {
    let dataset = dataset(70, 10);
    let folder = tempfile::tempdir().expect("temporary folder");
    for (model, normalization) in
        [("fcn", "none"), ("fcn", "batch"), ("lenet", "batch"), ("lenet", "layer"), ("lenet", "group")]
    {
        let settings = merged(&[("model", model), ("normalization", normalization), ("epochs", "1")]);
        let seeds = |trial: u64| Seeds { trial, ..Seeds::from_one(1) };
        let drawn = group(&[(&settings, seeds(1)), (&settings, seeds(2))]);
        // The lanes take up each other's weights, so that a lane's own would be seen.
        let mut given = group(&[(&settings, seeds(2)), (&settings, seeds(1))]);
        let images = ImageShape::of(&dataset.shape);
        let start = Model::new(&drawn.shape, &drawn.lanes, images, &Device::Cpu).expect("fits");
        let record = Record {
            hyperparameters: hyperparameters(&settings),
            seeds: seeds(1),
            images,
            input: Standardization::Fixed { mean: 0.0, deviation: 1.0 },
        };
        for (index, lane) in given.lanes.iter_mut().enumerate() {
            let path = folder.path().join(index.to_string());
            save::save(&path, &start, index, &record).expect("saved");
            lane.start = Start::From(Weights::read(&path).expect("read"));
        }
        assert_eq!(run_group(&drawn, &dataset), run_group(&given, &dataset), "{model} {normalization}");
    }
}

#[test]
fn running_statistics_are_taken_up_where_they_are_given() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("weights");
    let group = group(&[(&merged(&[("normalization", "batch")]), Seeds::from_one(1))]);
    let images = ImageShape { height: 8, width: 8, classes: 3 };
    let model = || Model::new(&group.shape, &group.lanes, images, &Device::Cpu).expect("fits");
    let statistics = |model: &Model| {
        let mean = model.named.iter().find(|named| named.name == "norm1.running_mean").expect("there");
        flat(&mean.values)
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for named in &model().named {
        let bytes = vec![0; named.shape.iter().product::<usize>() * 4];
        tensors.push((named.name.clone(), named.shape.clone(), bytes));
    }
    for (name, given, expected) in [("given", true, 1.5), ("left out", false, 0.0)] {
        let views = tensors.iter_mut().filter_map(|(name, shape, bytes)| {
            if name.contains("running") {
                *bytes = 1.5f32.to_le_bytes().repeat(shape[0]);
            }
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor");
            (given || !name.contains("running")).then_some((&*name, view))
        });
        safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).expect("written");
        let model = model();
        Weights::read(&path).expect("read").put_into(&model, 0).expect("fits");
        assert_eq!(statistics(&model), [expected; 16], "{name}");
        assert_eq!(flat(model.parameters[0].values()), [0.0; 16 * 64], "{name}");
    }
}
