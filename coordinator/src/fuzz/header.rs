//! The header of a safetensors file, as the command line reads it of an exported model.

use crate::cli::safetensors::Header;

/// What a header that is accepted says of its tensors fills the file.
pub fn header(bytes: &[u8]) {
    let length = bytes.len() as u64;
    match Header::read(bytes, length) {
        Ok(header) => {
            let shown = serde_json::to_value(&header).expect("it can be shown");
            assert_eq!(shown["tensors"].as_array().map(Vec::len), Some(header.tensors.len()));
            assert!(Header::read(bytes, length + 1).is_err(), "it is whole without a byte of the file");
        }
        Err(error) => assert!(error.to_string().len() < 4_096, "{error}"),
    }
}
