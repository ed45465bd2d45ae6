//! The numbers that tensors are made of on the CPU: f32 to train with, f64 to prove gradients with.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, StorageRef, Tensor, WithDType};

/// f32 or f64.
pub(crate) trait Element: WithDType + Default {
    /// The storage's numbers, to change, if they are of this type.
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// The numbers as what they are, if that is f32.
    fn as_f32(numbers: &[Self]) -> Option<&[f32]>;
    /// Places for numbers, likewise.
    fn as_f32_places(places: &mut [MaybeUninit<Self>]) -> Option<&mut [MaybeUninit<f32>]>;
    /// e to this power.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
}

macro_rules! element {
    ($number:ident, $variant:ident, $numbers:ident => $as_f32:expr) => {
        impl Element for $number {
            fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
                if let CpuStorage::$variant(numbers) = storage { Some(numbers) } else { None }
            }
            fn as_f32($numbers: &[Self]) -> Option<&[f32]> {
                $as_f32
            }
            fn as_f32_places($numbers: &mut [MaybeUninit<Self>]) -> Option<&mut [MaybeUninit<f32>]> {
                $as_f32
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $number::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $number::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $number::sqrt(self)
            }
        }
    };
}

element!(f32, F32, numbers => Some(numbers));
element!(f64, F64, _numbers => None);

/// Evaluates an expression with `$T` standing for the Rust type of a tensor's numbers.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err($crate::train::element::unsupported(other)),
        }
    };
}
pub(crate) use by_dtype;

pub(crate) fn unsupported(dtype: DType) -> candle_core::Error {
    candle_core::Error::Msg(format!("training on the CPU takes f32 or f64, not {dtype:?}"))
}

/// The numbers of a contiguous CPU tensor, in row-major order.
pub(crate) fn contiguous<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let numbers = T::cpu_storage_as_slice(storage)?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&numbers[start..end]),
        None => Err(candle_core::Error::Msg(format!("a contiguous tensor is needed, not {layout:?}"))),
    }
}

/// Appends so many numbers to a vector, without filling it with zeros first.
///
/// # Safety
///
/// `write` must write to every place that it is given.
#[inline(always)]
pub(crate) unsafe fn append<T>(out: &mut Vec<T>, count: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) {
    out.reserve(count);
    write(&mut out.spare_capacity_mut()[..count]);
    // SAFETY: there is room for them, and the caller promises that they were written.
    unsafe { out.set_len(out.len() + count) }
}

/// Appends what an iterator gives. Unlike [`Vec::extend`] it becomes part of the loop that it is called in,
/// and so of what [`super::simd::dispatch`] compiles.
#[inline(always)]
pub(crate) fn extend<T>(out: &mut Vec<T>, items: impl ExactSizeIterator<Item = T>) {
    out.reserve(items.len());
    let mut written = 0;
    for (place, item) in out.spare_capacity_mut().iter_mut().zip(items) {
        place.write(item);
        written += 1;
    }
    // SAFETY: so many places after the vector's end were written, one after the other.
    unsafe { out.set_len(out.len() + written) }
}

/// A vector of what an iterator gives, made as [`extend`] does.
#[inline(always)]
pub(crate) fn collect<T>(items: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    extend(&mut out, items);
    out
}

/// A CPU tensor held open for reading.
pub(crate) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    /// Opens a tensor.
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// Its numbers, in row-major order.
    pub(crate) fn slice<T: Element>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => contiguous(storage, self.layout),
            Storage::Cuda(_) | Storage::Metal(_) => {
                Err(candle_core::Error::Msg("the tensor is not in the CPU's memory".to_owned()))
            }
        }
    }
}

/// Changes the numbers of a CPU tensor in place.
pub(crate) fn modify<T: Element, R>(tensor: &Tensor, change: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    let access = Access { change: Cell::new(Some(change)), answer: Cell::new(None), numbers: PhantomData };
    tensor.inplace_op1(&access)?;
    let answer = access.answer.into_inner();
    answer.ok_or_else(|| candle_core::Error::Msg("the tensor is not in the CPU's memory".to_owned()))
}

struct Access<T, R, F> {
    change: Cell<Option<F>>,
    answer: Cell<Option<R>>,
    numbers: PhantomData<T>,
}

impl<T: Element, R, F: FnOnce(&mut [T]) -> R> candle_core::InplaceOp1 for Access<T, R, F> {
    fn name(&self) -> &'static str {
        "modify"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let dtype = storage_dtype(storage);
        let numbers = T::slice_mut(storage).ok_or_else(|| unsupported(dtype))?;
        match (layout.contiguous_offsets(), self.change.take()) {
            (Some((start, end)), Some(change)) => {
                self.answer.set(Some(change(&mut numbers[start..end])));
                Ok(())
            }
            _ => Err(candle_core::Error::Msg(format!("a contiguous tensor is needed, not {layout:?}"))),
        }
    }
}

fn storage_dtype(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}
