//! Datasets that are known by name: where they are published and what their files' checksums are.

use sha2::{Digest, Sha256};

use super::{DatasetError, FileRole};

/// A dataset that can be asked for by name alone.
#[derive(Debug)]
pub struct KnownDataset {
    /// What search files call it.
    pub name: &'static str,
    /// The folder in which distributions install it.
    pub package_folder: &'static str,
    /// The package that installs it there.
    pub package: &'static str,
    /// Where its publisher offers the packed files: this, then the file's name, then `.gz`.
    pub url: &'static str,
    /// Its files, in the order of [`FileRole::ALL`].
    pub files: [KnownFile; 4],
}

/// The published size and checksum of one file. Archives differ by how they were packed, so both are of the unpacked file.
#[derive(Debug)]
pub struct KnownFile {
    /// Size in bytes, unpacked.
    pub bytes: u64,
    /// SHA-256 of the unpacked file, in hexadecimal.
    pub sha256: &'static str,
}

impl KnownDataset {
    /// Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747): 70,000 grey images of
    /// clothes, 28x28, in ten classes.
    pub const FASHION_MNIST: Self = Self {
        name: "fashion-mnist",
        package_folder: "/usr/share/datasets/fashion-mnist",
        package: "dataset-fashion-mnist",
        url: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files: [
            KnownFile {
                bytes: 47_040_016,
                sha256: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            },
            KnownFile {
                bytes: 60_008,
                sha256: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            },
            KnownFile {
                bytes: 7_840_016,
                sha256: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            },
            KnownFile {
                bytes: 10_008,
                sha256: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            },
        ],
    };

    /// The dataset of this name, if it is known.
    pub fn find(name: &str) -> Option<&'static Self> {
        static ALL: [KnownDataset; 1] = [KnownDataset::FASHION_MNIST];
        ALL.iter().find(|known| known.name == name)
    }

    /// Checks the four unpacked files against what was published.
    pub fn check(&self, files: [&[u8]; 4]) -> Result<(), DatasetError> {
        for ((role, known), bytes) in FileRole::ALL.into_iter().zip(&self.files).zip(files) {
            let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if found != known.sha256 {
                return Err(DatasetError::Altered {
                    role,
                    dataset: self.name,
                    bytes: bytes.len(),
                    found,
                    expected_bytes: known.bytes,
                    expected: known.sha256,
                });
            }
        }
        Ok(())
    }
}
