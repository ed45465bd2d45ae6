//! Image datasets: what they are, how their IDX files read, how they are known to be the right ones.
//!
//! A dataset is four IDX files, as MNIST defined them: images and labels to train on, images and
//! labels to test on. Its classes and image size are read from the files. This module touches no
//! network and no clock; obtaining a dataset is the coordinator's business.

mod idx;
mod known;

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use idx::{Idx, IdxError};
pub use known::{KnownDataset, KnownFile};

use crate::id::{ArtifactHash, Name};

/// One of the four files of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileRole {
    /// Images to train and validate on.
    TrainImages,
    /// Their classes.
    TrainLabels,
    /// Images to test on.
    TestImages,
    /// Their classes.
    TestLabels,
}

impl FileRole {
    /// The four files, in the order in which a [`Manifest`] lists them.
    pub const ALL: [Self; 4] = [Self::TrainImages, Self::TrainLabels, Self::TestImages, Self::TestLabels];

    /// The name that MNIST gave to the file, and that Fashion-MNIST, KMNIST and others kept.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::TrainImages => "train-images-idx3-ubyte",
            Self::TrainLabels => "train-labels-idx1-ubyte",
            Self::TestImages => "t10k-images-idx3-ubyte",
            Self::TestLabels => "t10k-labels-idx1-ubyte",
        }
    }
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.file_name())
    }
}

/// The images and labels of one part of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Grey values, image after image, row after row: `[count, height, width]`.
    pub pixels: Bytes,
    /// The class of each image, from 0.
    pub labels: Bytes,
}

/// What is read from the four files before any training: sizes that a model is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Number of classes: one more than the largest label of the training images.
    pub classes: usize,
    /// Images to train and validate on.
    pub train_images: usize,
    /// Images to test on.
    pub test_images: usize,
}

impl Shape {
    /// Pixels of an image.
    pub const fn pixels(&self) -> usize {
        self.height * self.width
    }
}

/// A whole dataset in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Sizes of images, classes and parts.
    pub shape: Shape,
    /// Images to train and validate on.
    pub train: Part,
    /// Images to test on.
    pub test: Part,
}

/// What made a dataset unusable. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file is not there.
    #[error("{folder:?} has no {role}, packed (.gz) or not; a dataset is the four files {}", all_names())]
    Missing {
        /// The folder that was looked in.
        folder: PathBuf,
        /// The file that was looked for.
        role: FileRole,
    },
    /// A file cannot be read.
    #[error("{path:?} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not the IDX file that it should be.
    #[error("{role} is not usable: {source}")]
    Idx {
        /// The file.
        role: FileRole,
        /// What is wrong with it.
        source: IdxError,
    },
    /// Images and labels of a part differ in number.
    #[error(
        "{images} holds {image_count} images, but {labels} holds {label_count} labels: they do not belong together"
    )]
    Unequal {
        /// The images' file.
        images: FileRole,
        /// How many images it holds.
        image_count: usize,
        /// The labels' file.
        labels: FileRole,
        /// How many labels it holds.
        label_count: usize,
    },
    /// The test images have another size than the training images.
    #[error(
        "images to train on are {train_height}x{train_width}, but images to test on are {test_height}x{test_width}"
    )]
    Sizes {
        /// Rows of a training image.
        train_height: usize,
        /// Columns of a training image.
        train_width: usize,
        /// Rows of a test image.
        test_height: usize,
        /// Columns of a test image.
        test_width: usize,
    },
    /// A test label is a class that no training image has.
    #[error("{role} has the class {label}, but the training labels end at {largest}")]
    UnknownClass {
        /// The labels' file.
        role: FileRole,
        /// The class.
        label: u8,
        /// The largest class of the training images.
        largest: u8,
    },
    /// There is nothing to tell apart, or nothing to learn from.
    #[error("{role} holds too little: {problem}")]
    TooSmall {
        /// The file.
        role: FileRole,
        /// What is missing.
        problem: &'static str,
    },
    /// A file of a well-known dataset is not the published one.
    #[error(
        "{role} is not the published {dataset} file: {bytes} bytes with SHA-256 {found}, where {expected_bytes} bytes with {expected} were published. Delete it and fetch it again"
    )]
    Altered {
        /// The file.
        role: FileRole,
        /// The dataset's name.
        dataset: &'static str,
        /// Its size, unpacked.
        bytes: usize,
        /// Its SHA-256, unpacked.
        found: String,
        /// The published size.
        expected_bytes: u64,
        /// The published SHA-256.
        expected: &'static str,
    },
}

fn all_names() -> String {
    FileRole::ALL.map(FileRole::file_name).join(", ")
}

impl Shape {
    /// What the four unpacked files of a usable dataset hold, in the order of [`FileRole::ALL`].
    pub fn of_files(files: [&[u8]; 4]) -> Result<Self, DatasetError> {
        let parse =
            |role: FileRole, bytes| Idx::parse(bytes).map_err(|source| DatasetError::Idx { role, source });
        let [train_images, train_labels, test_images, test_labels] = FileRole::ALL;
        let part = |images, labels, image_bytes, label_bytes| {
            let image_idx = parse(images, image_bytes)?;
            let label_idx = parse(labels, label_bytes)?;
            let (count, height, width) =
                image_idx.images().map_err(|source| DatasetError::Idx { role: images, source })?;
            let label_count =
                label_idx.labels().map_err(|source| DatasetError::Idx { role: labels, source })?;
            if count != label_count {
                return Err(DatasetError::Unequal { images, image_count: count, labels, label_count });
            }
            Ok((label_idx.data.iter().max(), count, height, width))
        };
        let (train, train_count, height, width) = part(train_images, train_labels, files[0], files[1])?;
        let (test, test_count, test_height, test_width) = part(test_images, test_labels, files[2], files[3])?;
        if (height, width) != (test_height, test_width) {
            return Err(DatasetError::Sizes {
                train_height: height,
                train_width: width,
                test_height,
                test_width,
            });
        }
        let Some(&largest) = train else {
            return Err(DatasetError::TooSmall { role: train_images, problem: "no images" });
        };
        if largest == 0 {
            return Err(DatasetError::TooSmall { role: train_labels, problem: "one class only" });
        }
        match test {
            None => {
                return Err(DatasetError::TooSmall { role: test_images, problem: "no images" });
            }
            Some(&label) if label > largest => {
                return Err(DatasetError::UnknownClass { role: test_labels, label, largest });
            }
            Some(_) => {}
        }
        let classes = usize::from(largest) + 1;
        Ok(Self { height, width, classes, train_images: train_count, test_images: test_count })
    }
}

impl Dataset {
    /// The dataset that the four unpacked files spell out, in the order of [`FileRole::ALL`]. Nothing
    /// is copied: a file that is mapped into memory stays where it is.
    pub fn from_files(files: [Bytes; 4]) -> Result<Self, DatasetError> {
        let shape = Shape::of_files(files.each_ref().map(|bytes| &**bytes))?;
        let [train_images, train_labels, test_images, test_labels] = files;
        let part = |images: Bytes, labels: Bytes| Part {
            pixels: images.slice(Idx::header_bytes(3)..),
            labels: labels.slice(Idx::header_bytes(1)..),
        };
        Ok(Self { shape, train: part(train_images, train_labels), test: part(test_images, test_labels) })
    }

    /// The dataset in a folder of IDX files, packed (`.gz`) or not.
    pub fn from_folder(folder: &Path) -> Result<Self, DatasetError> {
        Self::from_files(read_folder(folder)?.map(Bytes::from))
    }
}

/// The four files of a folder, unpacked, in the order of [`FileRole::ALL`].
pub fn read_folder(folder: &Path) -> Result<[Vec<u8>; 4], DatasetError> {
    let read = |role: FileRole| {
        let plain = folder.join(role.file_name());
        let packed = folder.join(format!("{role}.gz"));
        let (path, is_packed) = if plain.is_file() {
            (plain, false)
        } else if packed.is_file() {
            (packed, true)
        } else {
            return Err(DatasetError::Missing { folder: folder.to_owned(), role });
        };
        let bytes = std::fs::read(&path)
            .and_then(|bytes| if is_packed { unpack(&bytes, MAX_FILE_BYTES) } else { Ok(bytes) });
        bytes.map_err(|source| DatasetError::Read { path, source })
    };
    let [a, b, c, d] = FileRole::ALL;
    Ok([read(a)?, read(b)?, read(c)?, read(d)?])
}

/// The largest file of a dataset, unpacked, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;

/// Unpacks a gzip archive that holds at most so many bytes.
pub fn unpack(packed: &[u8], most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(packed).take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let problem = format!("more than {most} bytes when unpacked");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, problem));
    }
    Ok(bytes)
}

/// A dataset as the coordinator keeps it: a name, sizes, and the artifacts that its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What search files call it.
    pub name: Name,
    /// Sizes of images, classes and parts.
    pub shape: Shape,
    /// The unpacked files' hashes, in the order of [`FileRole::ALL`].
    pub files: [ArtifactHash; 4],
}

impl Manifest {
    /// The hash that stands for the whole dataset: of the four files' hashes, one after the other.
    pub fn hash(&self) -> ArtifactHash {
        ArtifactHash::of(&self.files.map(|hash| *hash.as_bytes()).concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idx(dimensions: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn tiny() -> [Vec<u8>; 4] {
        [idx(&[3, 2, 2], &[0; 12]), idx(&[3], &[0, 1, 2]), idx(&[1, 2, 2], &[9; 4]), idx(&[1], &[1])]
    }

    fn read(files: &[Vec<u8>; 4]) -> Result<Dataset, DatasetError> {
        Dataset::from_files(files.clone().map(Bytes::from))
    }

    #[test]
    fn sizes_and_classes_are_read_from_the_files() {
        let dataset = read(&tiny()).expect("good");
        let expected = Shape { height: 2, width: 2, classes: 3, train_images: 3, test_images: 1 };
        assert_eq!(dataset.shape, expected);
        assert_eq!(dataset.test, Part { pixels: vec![9; 4].into(), labels: vec![1].into() });
    }

    #[test]
    fn unusable_files_are_refused_with_the_file_named() {
        let change = |index: usize, bytes: Vec<u8>| {
            let mut files = tiny();
            files[index] = bytes;
            read(&files).expect_err("must be refused").to_string()
        };
        let mut short = tiny()[0].clone();
        short.pop();
        for (index, bytes, said) in [
            (0, short, "ends after 11 of 12 bytes"),
            (0, idx(&[3], &[0; 3]), "train-images-idx3-ubyte"),
            (0, b"\x1f\x8b".to_vec(), "train-images-idx3-ubyte"),
            (0, idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), "train-images-idx3-ubyte"),
            (1, idx(&[2], &[0, 1]), "3 images"),
            (1, idx(&[3], &[0; 3]), "one class"),
            (2, idx(&[1, 2, 3], &[0; 6]), "2x3"),
            (3, idx(&[1], &[7]), "class 7"),
        ] {
            let message = change(index, bytes);
            assert!(message.contains(said), "{message:?} does not say {said:?}");
        }
    }

    #[test]
    fn a_folder_without_a_file_says_which() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let message = read_folder(folder.path()).expect_err("empty").to_string();
        assert!(message.contains("train-images-idx3-ubyte"), "{message}");
    }
}
