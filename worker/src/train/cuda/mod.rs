//! Kernels for NVIDIA GPUs, and what launches them.
//!
//! Work on a GPU runs in the order in which it is asked for, on one stream, and nothing here waits
//! for it.

mod libraries;
mod product;

use std::ffi::c_void;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg, sys};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor};

pub(crate) use self::libraries::load;
pub(crate) use self::product::{Matrices, multiply, multiply_rows};

/// The text of each file of kernels, as the build made it.
#[allow(unreachable_pub, reason = "the build says pub")]
mod sources {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Threads of a block, where a kernel does not ask for another shape.
const THREADS: usize = 256;
/// Columns of a block that adds up columns, and rows that it goes through at once.
const COLUMNS: usize = 32;
const ROWS: usize = 16;
/// Fewest rows that one block adds up, and the most blocks that share the rows of a lane.
const FEWEST_ROWS: usize = 128;
const MOST_RUNS: usize = 128;

/// A GPU that holds tensors of f32.
#[derive(Clone, Copy)]
pub(crate) struct Gpu<'a> {
    device: &'a CudaDevice,
}

/// The files of kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) enum File {
    Activations,
    Normalization,
    Optimizers,
    Windows,
}

impl File {
    fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Activations => ("activations", sources::ACTIVATIONS),
            Self::Normalization => ("normalization", sources::NORMALIZATION),
            Self::Optimizers => ("optimizers", sources::OPTIMIZERS),
            Self::Windows => ("windows", sources::WINDOWS),
        }
    }
}

/// Blocks and threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    blocks: (usize, usize, usize),
    threads: (usize, usize),
}

impl Grid {
    /// A thread for each of so many.
    pub(crate) fn over(count: usize) -> Self {
        Self::planes(count, 1)
    }

    /// A thread for each of so many, so many times; a kernel goes on where there are too few planes.
    pub(crate) fn planes(count: usize, planes: usize) -> Self {
        Self { blocks: (count.div_ceil(THREADS), planes.min(u16::MAX.into()), 1), threads: (THREADS, 1) }
    }

    /// So many blocks, so many times.
    pub(crate) fn of_blocks(count: usize, planes: usize) -> Self {
        Self { blocks: (count, planes, 1), threads: (THREADS, 1) }
    }

    /// Blocks of a plane.
    pub(crate) fn count(self) -> usize {
        self.blocks.0
    }

    /// A block for each of so many.
    pub(crate) fn blocks(count: usize) -> Self {
        Self { blocks: (count, 1, 1), threads: (THREADS, 1) }
    }
}

/// How the rows of `[lanes, rows, columns]` are parted where columns are added up. Neither the lanes nor
/// the GPU have a say, for the parting decides how sums are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    pub(crate) lanes: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Rows of a run.
    pub(crate) length: usize,
    /// How many there are.
    pub(crate) count: usize,
}

impl Runs {
    pub(crate) fn over(lanes: usize, rows: usize, columns: usize) -> Self {
        let length = rows.div_ceil(MOST_RUNS).max(FEWEST_ROWS);
        Self { lanes, rows, columns, length, count: rows.div_ceil(length) }
    }

    /// Whether a block had better go through the rows several times than several kernels after one another.
    pub(crate) fn are_few(&self) -> bool {
        self.rows <= 4 * FEWEST_ROWS
    }

    /// Blocks that each go through all rows.
    pub(crate) fn grid_of_columns(&self) -> Grid {
        Grid { blocks: (self.columns.div_ceil(COLUMNS), 1, self.lanes), threads: (COLUMNS, ROWS) }
    }

    pub(crate) fn grid(&self) -> Grid {
        Grid { blocks: (self.columns.div_ceil(COLUMNS), self.count, self.lanes), threads: (COLUMNS, ROWS) }
    }

    pub(crate) fn shape(&self) -> (usize, usize, usize) {
        (self.lanes, self.count, self.columns)
    }
}

impl<'a> Gpu<'a> {
    /// The GPU that a tensor of f32 lives on.
    pub(crate) fn of(tensor: &'a Tensor) -> Option<Self> {
        if tensor.dtype() == DType::F32 { Self::on(tensor.device()) } else { None }
    }

    /// The GPU that a device is.
    pub(crate) fn on(device: &'a Device) -> Option<Self> {
        match device {
            Device::Cuda(device) => Some(Self { device }),
            Device::Cpu | Device::Metal(_) => None,
        }
    }

    /// A tensor of numbers that are yet to be written.
    pub(crate) fn empty(self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        // SAFETY: kernels write every number before anything reads one.
        let numbers = unsafe { self.device.alloc::<f32>(shape.elem_count()) }?;
        Ok(self.tensor(CudaStorage::wrap_cuda_slice(numbers, self.device.clone()), shape))
    }

    /// The same, of bytes.
    pub(crate) fn empty_bytes(self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        // SAFETY: as above.
        let bytes = unsafe { self.device.alloc::<u8>(shape.elem_count()) }?;
        Ok(self.tensor(CudaStorage::wrap_cuda_slice(bytes, self.device.clone()), shape))
    }

    fn tensor(self, storage: CudaStorage, shape: Shape) -> Tensor {
        Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
    }

    /// Launches a kernel: it gets the tensors, then the sizes, then the numbers. All tensors are contiguous.
    ///
    /// What a kernel writes to is among the tensors: nobody else may be reading it at that point of the
    /// stream, which holds as long as one thread does all the work with a model.
    pub(crate) fn launch(
        self,
        (file, name): (File, &str),
        grid: Grid,
        tensors: &[&Tensor],
        sizes: &[usize],
        numbers: &[f32],
    ) -> Result<()> {
        let (blocks, threads) = (grid.blocks, grid.threads);
        if blocks.0 * blocks.1 * blocks.2 == 0 {
            return Ok(());
        }
        let (module, source) = file.source();
        let function = self.device.get_or_load_custom_func(name, module, source)?;
        let pointers = tensors.iter().map(|tensor| self.pointer(tensor)).collect::<Result<Vec<_>>>()?;
        let sizes = sizes.iter().map(|&size| size_of_kernel(size)).collect::<Result<Vec<i32>>>()?;
        let config = LaunchConfig {
            grid_dim: (dimension(blocks.0)?, dimension(blocks.1)?, dimension(blocks.2)?),
            block_dim: (dimension(threads.0)?, dimension(threads.1)?, 1),
            shared_mem_bytes: 0,
        };
        let mut arguments = function.builder();
        pointers.iter().for_each(|pointer| {
            arguments.arg(pointer);
        });
        sizes.iter().for_each(|size| {
            arguments.arg(size);
        });
        numbers.iter().for_each(|number| {
            arguments.arg(number);
        });
        // SAFETY: the kernels are ours, and the callers pass what they take: tensors of the sizes that they
        // name, on this device, whose memory is freed in the order of the stream.
        unsafe { arguments.launch(config) }.map_err(Error::wrap)?;
        Ok(())
    }

    /// Where a contiguous tensor starts in the GPU's memory.
    pub(crate) fn pointer(self, tensor: &Tensor) -> Result<sys::CUdeviceptr> {
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, _))) = (&*storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a contiguous tensor on the GPU is needed, not {tensor:?}")
        };
        let stream = self.device.cuda_stream();
        let base = match storage.dtype() {
            DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(&stream).0,
            DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(&stream).0,
            DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(&stream).0,
            DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(&stream).0,
            DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(&stream).0,
            other => candle_core::bail!("no kernel takes {other:?}"),
        };
        Ok(base + (start * storage.dtype().size_in_bytes()) as u64)
    }
}

/// Makes a GPU ready for work that is asked for faster than by default.
///
/// It keeps the memory that tensors leave, for the next ones: otherwise all goes back to the system each
/// time that the stream runs empty, which takes longer than a training step. And no events are made to keep
/// streams apart, two for every tensor, for there is one stream.
pub(crate) fn prepare(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { return Ok(()) };
    let stream = device.cuda_stream();
    let mut keep = u64::MAX;
    // SAFETY: the device exists, for its context does; the attribute takes a number of 64 bits; and all work
    // with the device, here and in candle, is asked for on its one stream.
    unsafe {
        device.disable_event_tracking();
        let mut pool = std::ptr::null_mut();
        let threshold = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device())
            .result()
            .and_then(|()| {
                sys::cuMemPoolSetAttribute(pool, threshold, (&raw mut keep).cast::<c_void>()).result()
            })
            .map_err(Error::wrap)
    }
}

/// Bytes that a GPU can still give to this process: what nobody has, and what is kept for the next tensors.
pub(crate) fn free_memory(device: &CudaDevice) -> Result<u64> {
    use sys::CUmemPool_attribute::{CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, CU_MEMPOOL_ATTR_USED_MEM_CURRENT};
    let stream = device.cuda_stream();
    // What tensors leave is free when the stream gets there.
    stream.synchronize().map_err(Error::wrap)?;
    let (free, _) = stream.context().mem_get_info().map_err(Error::wrap)?;
    let mut pool = std::ptr::null_mut();
    let (mut reserved, mut used) = (0u64, 0u64);
    // SAFETY: the device exists, for its context does; both attributes are numbers of 64 bits.
    unsafe {
        let read = |pool, attribute, number: &mut u64| {
            sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(number).cast::<c_void>()).result()
        };
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, stream.context().cu_device())
            .result()
            .and_then(|()| read(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &mut reserved))
            .and_then(|()| read(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &mut used))
            .map_err(Error::wrap)?;
    }
    Ok(free as u64 + reserved.saturating_sub(used))
}

/// A size as kernels take it. Beyond it they could not count.
fn size_of_kernel(size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| {
        Error::Msg(format!(
            "{size} numbers in one tensor are too many for a GPU kernel, out of memory: at most {}",
            i32::MAX
        ))
    })
}

fn dimension(size: usize) -> Result<u32> {
    size_of_kernel(size).map(i32::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::testing;

    /// On a GPU alone, real or emulated, that `FITTINGROOM_TEST_DEVICE` names.
    #[test]
    fn what_a_tensor_leaves_is_free_again() {
        const BYTES: u64 = 1 << 30;
        let Device::Cuda(device) = testing::device() else { return };
        // Other tests take memory at the same time, but not so much.
        let near = |given: u64, expected: u64| given.abs_diff(expected) < BYTES / 4;
        let before = free_memory(device).expect("told");
        let tensor = Gpu { device }.empty_bytes(BYTES as usize).expect("there is room");
        let while_taken = free_memory(device).expect("told");
        assert!(near(while_taken, before - BYTES), "{before} before it, {while_taken} with it");
        drop(tensor);
        let after = free_memory(device).expect("told");
        assert!(near(after, before), "{before} before it, {after} after it");
    }
}
