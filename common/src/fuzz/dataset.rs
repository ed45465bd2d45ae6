//! IDX files, packed and not.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::MOST_WORDS;
use crate::dataset::{Dataset, Idx, Shape, unpack};

/// The largest archive's content that is unpacked, in bytes.
const MOST_UNPACKED: u64 = 64 << 10;

/// An IDX file, and the four files of a dataset: the input says how long the first three are.
pub fn idx(bytes: &[u8]) {
    if let Ok(parsed) = Idx::parse(bytes) {
        let sizes = parsed.dimensions.iter().flat_map(|size| (*size as u32).to_be_bytes());
        let header: Vec<u8> = [0, 0, 8, parsed.dimensions.len() as u8].into_iter().chain(sizes).collect();
        assert_eq!([&header, parsed.data].concat(), bytes, "another file says the same");
        if let Ok((count, height, width)) = parsed.images() {
            assert_eq!(count * height * width, parsed.data.len());
        }
        if let Ok(count) = parsed.labels() {
            assert_eq!(count, parsed.data.len());
        }
    }
    let Some((lengths, mut rest)) = bytes.split_first_chunk::<6>() else { return };
    let mut next = |at: usize| {
        let length = usize::from(u16::from_le_bytes([lengths[at], lengths[at + 1]]));
        let (file, others) = rest.split_at(length.min(rest.len()));
        rest = others;
        file
    };
    let files = [next(0), next(2), next(4), rest];
    match Shape::of_files(files) {
        Ok(shape) => {
            let dataset = Dataset::from_files(files.map(Bytes::copy_from_slice)).expect("its shape is good");
            assert_eq!(dataset.shape, shape);
            for (part, images) in [(&dataset.train, shape.train_images), (&dataset.test, shape.test_images)] {
                assert_eq!((part.labels.len(), part.pixels.len()), (images, images * shape.pixels()));
                assert!(part.labels.iter().all(|label| usize::from(*label) < shape.classes));
            }
        }
        Err(error) => assert!(error.to_string().len() < MOST_WORDS, "{error}"),
    }
}

/// A gzip archive, of whatever size it claims to be.
pub fn gzip(bytes: &[u8]) {
    if let Ok(plain) = unpack(bytes, MOST_UNPACKED) {
        assert!(plain.len() as u64 <= MOST_UNPACKED, "{} bytes came out", plain.len());
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).expect("into memory");
    let packed = packed.finish().expect("into memory");
    let length = bytes.len() as u64;
    assert_eq!(unpack(&packed, length).expect("what was packed"), bytes);
    if let Some(less) = length.checked_sub(1) {
        assert!(unpack(&packed, less).is_err(), "more came out than is allowed");
    }
}
