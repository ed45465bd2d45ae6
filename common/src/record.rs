//! The record beside a model: what it takes to run its training again, and what came of it.
//!
//! The same [`Recipe`] on the same kind of [`Machine`] gives the same bits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dataset::{FileRole, Manifest};
use crate::hyperparameter::{Hyperparameters, Parameter};
use crate::id::ArtifactHash;
use crate::trial::{Report, Score, Seeds};

/// The version of the document that this program writes, and the only one that it reads.
pub const VERSION: u32 = 1;

/// The largest record that is read, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;

/// All that decides what a training gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Every hyperparameter.
    pub hyperparameters: Hyperparameters,
    /// The random streams.
    pub seeds: Seeds,
    /// How each epoch visits the training images.
    pub shuffle: Shuffle,
    /// The hash of the file whose weights it starts from; none if they are drawn.
    pub initial_weights: Option<ArtifactHash>,
    /// What it trains on.
    pub dataset: DatasetRecord,
}

/// Whether the training images are shuffled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// Every epoch anew, from the seed of the order.
    On,
    /// Never: by index, the lowest first.
    Off,
}

/// A dataset as documents describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// What people call it.
    pub name: String,
    /// Stands for all of its files: see [`Manifest::hash`].
    pub hash: ArtifactHash,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Number of classes.
    pub classes: usize,
    /// Images to train and validate on.
    pub train_images: usize,
    /// Images to test on.
    pub test_images: usize,
    /// The unpacked files' hashes.
    pub files: BTreeMap<String, ArtifactHash>,
}

impl From<&Manifest> for DatasetRecord {
    fn from(it: &Manifest) -> Self {
        let names = FileRole::ALL.map(|role| role.file_name().to_owned());
        Self {
            name: it.name.to_string(),
            hash: it.hash(),
            height: it.shape.height,
            width: it.shape.width,
            classes: it.shape.classes,
            train_images: it.shape.train_images,
            test_images: it.shape.test_images,
            files: names.into_iter().zip(it.files).collect(),
        }
    }
}

/// What computed: on another kind, sums may round differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `cpu`, `cuda` or `metal`.
    pub device: String,
    /// The model of the processor or of the GPU, as the system calls it.
    pub model: String,
    /// The processor's instruction sets that the engine chooses by.
    pub features: Vec<String>,
}

/// What a training came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Epochs done.
    pub epoch: Option<u32>,
    /// See [`Report::train`].
    pub train: Option<Score>,
    /// See [`Report::validation`].
    pub validation: Option<Score>,
    /// Over the test images.
    pub test: Option<Score>,
}

impl From<&Report> for Metrics {
    fn from(it: &Report) -> Self {
        Self { epoch: Some(it.epoch), train: Some(it.train), validation: Some(it.validation), test: it.test }
    }
}

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub record_version: u32,
    /// What to do again.
    #[serde(flatten)]
    pub recipe: Recipe,
    /// The version of Fitting Room that trained; `None` where the model does not say.
    pub program: Option<String>,
    /// What it trained on; `None` where the model does not say.
    pub machine: Option<Machine>,
    /// What came of it.
    pub metrics: Metrics,
}

/// Why a document is not a record that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not JSON, or breaks off.
    #[error("it is not a JSON document: {0}")]
    Json(serde_json::Error),
    /// It is of another version.
    #[error(
        "it has {key} {found} where this program reads {VERSION}: is it a record, and of this version of the program?",
        key = "record_version"
    )]
    Version {
        /// What it has in the place of the version.
        found: serde_json::Value,
    },
    /// It lacks something, or something in it is not what it must be.
    #[error("it is no record that can be run again: {0}")]
    Content(serde_json::Error),
}

impl Record {
    /// Reads a document. What it says beyond a record is left aside.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let document: serde_json::Value = serde_json::from_slice(bytes).map_err(RecordError::Json)?;
        match document.get("record_version") {
            Some(version) if *version == VERSION => {
                serde_json::from_value(document).map_err(RecordError::Content)
            }
            other => Err(RecordError::Version { found: other.cloned().unwrap_or_default() }),
        }
    }
}

impl Recipe {
    /// What `self`, which is there, has otherwise than `here`, each in words.
    pub fn differences(&self, here: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut compare = |name: &str, there: Option<String>, here: Option<String>| {
            if there != here {
                let word = |side: Option<String>| side.unwrap_or_else(|| "nothing".to_owned());
                all.push(format!("{name} is {} there and {} here", word(there), word(here)));
            }
        };
        for parameter in Parameter::all() {
            let of = |recipe: &Self| recipe.hyperparameters.get(parameter).map(ToString::to_string);
            compare(parameter.name(), of(self), of(here));
        }
        let seeds = |recipe: &Self| {
            let Seeds { split, order, trial } = recipe.seeds;
            [("the seed of the split", split), ("the seed of the order", order), ("the trial's seed", trial)]
        };
        for ((name, there), (_, here)) in seeds(self).into_iter().zip(seeds(here)) {
            compare(name, Some(there.to_string()), Some(here.to_string()));
        }
        let shuffle = |recipe: &Self| Some(format!("{:?}", recipe.shuffle).to_lowercase());
        compare("shuffle", shuffle(self), shuffle(here));
        let weights = |recipe: &Self| recipe.initial_weights.map(|hash| hash.to_string());
        compare("the hash of the initial weights", weights(self), weights(here));
        // Folders may be called anything: the content counts.
        let dataset = |recipe: &Self| format!("{} ({})", recipe.dataset.hash, recipe.dataset.name);
        if self.dataset.hash != here.dataset.hash {
            compare("the dataset", Some(dataset(self)), Some(dataset(here)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Shape;
    use crate::id::Name;
    use crate::trial::Finite;

    fn recipe() -> Recipe {
        let manifest = Manifest {
            name: Name::sanitised("tiny"),
            shape: Shape { height: 2, width: 3, classes: 2, train_images: 4, test_images: 1 },
            files: [b"a", b"b", b"c", b"d"].map(|bytes| ArtifactHash::of(bytes)),
        };
        Recipe {
            hyperparameters: Hyperparameters::defaults(),
            seeds: Seeds { split: u64::MAX, order: 1, trial: 2 },
            shuffle: Shuffle::On,
            initial_weights: None,
            dataset: DatasetRecord::from(&manifest),
        }
    }

    fn record() -> Record {
        let score = |loss, accuracy| {
            Some(Score {
                loss: Finite::new(loss).expect("finite"),
                accuracy: Finite::new(accuracy).expect("finite"),
            })
        };
        Record {
            record_version: VERSION,
            recipe: recipe(),
            program: Some("0.1.0".to_owned()),
            machine: Some(Machine { device: "cpu".into(), model: "Z80".into(), features: vec![] }),
            metrics: Metrics {
                epoch: Some(3),
                train: score(0.1 + 0.2, 1.0 / 3.0),
                validation: score(1e-9, 0.7),
                test: None,
            },
        }
    }

    #[test]
    fn a_record_reads_back_to_the_bit_whatever_else_the_document_says() {
        let mut record = record();
        // Numbers of 17 digits that a quick reader gets wrong in the last place.
        for (name, value) in
            [("learning_rate", 0.017_999_999_225_139_618), ("beta2", 0.899_999_999_999_999_9)]
        {
            let parameter = Parameter::find(name).expect("known");
            let value = parameter.number(value).expect("in range");
            record.recipe.hyperparameters.set(parameter, &value).expect("in range");
        }
        let mut document = serde_json::to_value(&record).expect("serialises");
        document["search"] = "quickstart".into();
        let bytes = serde_json::to_vec_pretty(&document).expect("serialises");
        assert_eq!(Record::parse(&bytes).expect("good"), record);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let text = serde_json::to_string(&record()).expect("serialises");
        for (name, document, said) in [
            ("cut off", text[..text.len() - 9].to_owned(), "not a JSON document"),
            ("nothing", String::new(), "not a JSON document"),
            ("a list", "[]".to_owned(), "record_version null"),
            ("newer", text.replace(r#""record_version":1"#, r#""record_version":2"#), "record_version 2"),
            (
                "a wrong name",
                text.replace("learning_rate", "learning_rat"),
                r#"did you mean "learning_rate"?"#,
            ),
            ("a wrong value", text.replace(r#""adam""#, r#""addam""#), r#"did you mean "adam"?"#),
            ("a wrong hash", text.replace(&recipe().dataset.hash.to_string(), "12"), "not an artifact hash"),
            ("no seeds", text.replace("seeds", "seed"), "`seeds`"),
            ("infinity", text.replace("0.7", "1e999"), "number out of range"),
        ] {
            let message = Record::parse(document.as_bytes()).expect_err(name).to_string();
            assert!(message.contains(said), "{name}: {message}");
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let changed = |change: &dyn Fn(&mut Recipe)| {
            let mut other = recipe();
            change(&mut other);
            other.differences(&recipe())
        };
        let rate = Parameter::find("learning_rate").expect("known");
        let half = rate.number(0.5).expect("in range");
        assert_eq!(changed(&|_| ()), Vec::<String>::new());
        assert_eq!(changed(&|it| it.dataset.name = "elsewhere".into()), Vec::<String>::new());
        for (said, change) in [
            (
                "learning_rate is 0.5 there and 0.001 here",
                &(|it: &mut Recipe| it.hyperparameters.set(rate, &half).expect("in range"))
                    as &dyn Fn(&mut Recipe),
            ),
            ("the seed of the order is 7 there and 1 here", &|it| it.seeds.order = 7),
            ("shuffle is off there and on here", &|it| it.shuffle = Shuffle::Off),
            ("there and nothing here", &|it| it.initial_weights = Some(ArtifactHash::of(b"w"))),
            ("(tiny) here", &|it| it.dataset.hash = ArtifactHash::of(b"other")),
        ] {
            let differences = changed(change);
            assert!(differences.len() == 1 && differences[0].contains(said), "{differences:?}");
        }
    }
}
