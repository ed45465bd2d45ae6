//! The header of a safetensors file: which tensors it holds, and what was said about them.
//!
//! The format, by its reference implementation: 8 bytes with the header's length (little-endian),
//! the header as a JSON object, then the tensors' bytes, one after the other without a gap. Data is
//! never read here, and nothing is allocated by a length that was not checked against the file's.

use std::io::Read;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a safetensors file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Header {
    /// The tensors, in the order of their bytes.
    pub(crate) tensors: Vec<Tensor>,
    /// What the writer noted.
    pub(crate) metadata: Map<String, Value>,
}

/// One tensor of a safetensors file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Tensor {
    /// Its name.
    pub(crate) name: String,
    /// The type of its elements, by the format's names: `F32`, `I64`.
    pub(crate) dtype: String,
    /// The size of each dimension, the outermost first.
    pub(crate) shape: Vec<u64>,
    #[serde(skip)]
    begin: u64,
    #[serde(skip)]
    end: u64,
}

/// Why bytes are not a safetensors file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// The file is too short for the header that it claims.
    #[error("its header claims {claimed} bytes, but the file has {file}")]
    Length {
        /// The claimed length of the header.
        claimed: u64,
        /// The length of the file.
        file: u64,
    },
    /// The header is longer than any that is meant.
    #[error("its header claims {claimed} bytes, more than {most}")]
    TooLong {
        /// The claimed length of the header.
        claimed: u64,
        /// The longest that is read.
        most: u64,
    },
    /// The header is not a JSON object.
    #[error("its header is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// An entry of the header is not what it must be.
    #[error("its header's entry {name:?} {problem}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Tensors overlap, leave a gap, or do not end where the file does.
    #[error("its tensors' bytes break off at {at} of {data}")]
    Gap {
        /// Where the next tensor should begin.
        at: u64,
        /// How many bytes of data there are.
        data: u64,
    },
}

/// The longest header that is read, in bytes. The reference implementation has the same bound.
const MAX_HEADER: u64 = 100_000_000;

impl Header {
    /// Reads the header from the beginning of a file of `file_length` bytes.
    pub(crate) fn read(mut file: impl Read, file_length: u64) -> Result<Self, HeaderError> {
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let claimed = u64::from_le_bytes(length);
        if claimed > MAX_HEADER {
            return Err(HeaderError::TooLong { claimed, most: MAX_HEADER });
        }
        let Some(data) = file_length.checked_sub(8).and_then(|rest| rest.checked_sub(claimed)) else {
            return Err(HeaderError::Length { claimed, file: file_length });
        };
        let mut text = Vec::new();
        file.take(claimed).read_to_end(&mut text)?;
        let mut entries: Map<String, Value> = serde_json::from_slice(&text)?;
        let metadata = match entries.shift_remove("__metadata__") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata,
            Some(_) => return Err(wrong("__metadata__", "is not an object")),
        };
        let mut tensors =
            entries.iter().map(|(name, entry)| Tensor::read(name, entry)).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
        let mut at = 0;
        for tensor in &tensors {
            if tensor.begin != at {
                return Err(HeaderError::Gap { at, data });
            }
            at = tensor.end;
        }
        if at != data {
            return Err(HeaderError::Gap { at, data });
        }
        Ok(Self { tensors, metadata })
    }
}

impl Tensor {
    fn read(name: &str, entry: &Value) -> Result<Self, HeaderError> {
        let dtype = entry.get("dtype").and_then(Value::as_str).ok_or_else(|| wrong(name, "has no dtype"))?;
        let shape = numbers(entry.get("shape")).ok_or_else(|| wrong(name, "has no shape"))?;
        let offsets = numbers(entry.get("data_offsets")).ok_or_else(|| wrong(name, "has no data_offsets"))?;
        let &[begin, end] = offsets.as_slice() else {
            return Err(wrong(name, "has other than two data_offsets"));
        };
        let size = shape
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(*size))
            .and_then(|elements| elements.checked_mul(bits(dtype)?))
            .filter(|bits| bits.is_multiple_of(8))
            .map(|bits| bits / 8)
            .ok_or_else(|| wrong(name, "has an unknown dtype or an impossible shape"))?;
        if end.checked_sub(begin) != Some(size) {
            return Err(wrong(name, "has data_offsets that do not fit its shape"));
        }
        Ok(Self { name: name.to_owned(), dtype: dtype.to_owned(), shape, begin, end })
    }
}

fn wrong(name: &str, problem: &'static str) -> HeaderError {
    HeaderError::Entry { name: name.chars().take(80).collect(), problem }
}

fn numbers(list: Option<&Value>) -> Option<Vec<u64>> {
    list?.as_array()?.iter().map(Value::as_u64).collect()
}

/// Bits of one element.
fn bits(dtype: &str) -> Option<u64> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => Some(8),
        "U16" | "I16" | "F16" | "BF16" => Some(16),
        "U32" | "I32" | "F32" => Some(32),
        "U64" | "I64" | "F64" => Some(64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Header, HeaderError> {
        Header::read(bytes, bytes.len() as u64)
    }

    #[test]
    fn tensors_come_in_the_order_of_their_bytes() {
        let header = r#"{
            "__metadata__": {"program": "0.1.0", "input_mean": "0.5"},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
        }"#;
        let header = read(&file(header, 32)).expect("good");
        let shapes: Vec<_> =
            header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect();
        assert_eq!(shapes, [("a", &[2, 3][..]), ("b", &[2][..])]);
        assert_eq!(header.metadata["input_mean"], "0.5");
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let one = |shape: &str, offsets: &str| {
            format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let mut claims_all = file("{}", 0);
        claims_all[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut claims_more = file("{}", 0);
        claims_more[0] = 3;
        let rows = [
            ("nothing at all", Vec::new()),
            ("a length and nothing", vec![0; 7]),
            ("a header as long as memory", claims_all),
            ("a header longer than the file", claims_more),
            ("a header that is no JSON", file("{", 0)),
            ("a header that is a list", file("[]", 0)),
            ("data that no tensor has", file("{}", 4)),
            ("a tensor past the end", file(&one("[2]", "[0,8]"), 4)),
            ("a gap", file(&one("[1]", "[4,8]"), 8)),
            ("offsets that go backwards", file(&one("[1]", "[4,0]"), 4)),
            ("offsets that do not fit", file(&one("[2]", "[0,4]"), 4)),
            ("three offsets", file(&one("[1]", "[0,4,8]"), 4)),
            ("a negative size", file(&one("[-1]", "[0,4]"), 4)),
            ("a product beyond 64 bits", file(&one("[4294967296,4294967296,2]", "[0,4]"), 4)),
            ("an unknown type", file(r#"{"w":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}}"#, 4)),
            ("metadata that is a word", file(r#"{"__metadata__":"x"}"#, 0)),
        ];
        for (row, bytes) in rows {
            assert!(read(&bytes).is_err(), "{row} was accepted");
        }
    }
}
