//! Matrix products by cuBLAS, one for each lane, in f32 without shortcuts.

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{Error, Result, Tensor};

use super::{File, Gpu, Grid, size_of_kernel};

/// A matrix of each lane, row-major in a contiguous tensor, or the transpose of such; or one matrix that
/// all lanes share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrices<'a> {
    tensor: &'a Tensor,
    lanes: usize,
    rows: usize,
    columns: usize,
    is_transposed: bool,
}

impl<'a> Matrices<'a> {
    /// Those that fill a tensor of `[lanes, …]`, all after the lanes being rows of so many columns.
    pub(crate) fn of(tensor: &'a Tensor, columns: usize) -> Result<Self> {
        let lanes = tensor.dim(0)?;
        let rows = tensor.elem_count() / (lanes * columns).max(1);
        Ok(Self { tensor, lanes, rows, columns, is_transposed: false })
    }

    /// Their transposes; nothing moves.
    pub(crate) fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, is_transposed: !self.is_transposed, ..self }
    }

    /// What cuBLAS, which counts columns first, has to know: of its view this is always the transpose.
    fn operand(&self, gpu: Gpu<'_>) -> Result<Operand> {
        let operation = if self.is_transposed {
            sys::cublasOperation_t::CUBLAS_OP_T
        } else {
            sys::cublasOperation_t::CUBLAS_OP_N
        };
        let leading = if self.is_transposed { self.rows } else { self.columns };
        let stride = if self.lanes == 1 { 0 } else { self.rows * self.columns };
        Ok(Operand {
            pointer: gpu.pointer(self.tensor)? as *const f32,
            operation,
            leading: size_of_kernel(leading)?,
            stride: stride as i64,
        })
    }
}

struct Operand {
    pointer: *const f32,
    operation: sys::cublasOperation_t,
    leading: i32,
    stride: i64,
}

/// `left · right` in each lane: `[lanes, rows, columns]`.
pub(crate) fn multiply(gpu: Gpu<'_>, left: Matrices<'_>, right: Matrices<'_>) -> Result<Tensor> {
    let lanes = left.lanes.max(right.lanes);
    let out = gpu.empty((lanes, left.rows, right.columns))?;
    multiply_to(gpu, &out, left, right)?;
    Ok(out)
}

/// `leftᵀ · right` in each lane, of so many rows that their sum is better shared by several products that
/// are added up: otherwise a GPU is left idle by the few tiles of the result.
///
/// `left`: `[lanes, rows, outputs]`, `right`: `[lanes, rows, inputs]` or `[1, …]`; gives `[lanes, outputs, inputs]`.
pub(crate) fn multiply_rows(gpu: Gpu<'_>, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (lanes, rows, outputs) = left.dims3()?;
    let (right_lanes, _, inputs) = right.dims3()?;
    let parts = parts(rows, outputs, inputs);
    if parts == 1 {
        return multiply(gpu, Matrices::of(left, outputs)?.transposed(), Matrices::of(right, inputs)?);
    }
    let parted = |tensor: &Tensor| tensor.reshape((tensor.dim(0)? * parts, rows / parts, tensor.dim(2)?));
    let products = gpu.empty((lanes * parts, outputs, inputs))?;
    if right_lanes == lanes {
        let (left, right) = (parted(left)?, parted(right)?);
        let left = Matrices::of(&left, outputs)?.transposed();
        multiply_to(gpu, &products, left, Matrices::of(&right, inputs)?)?;
    } else {
        let right = parted(right)?;
        let right = Matrices::of(&right, inputs)?;
        for lane in 0..lanes {
            let left = parted(&left.narrow(0, lane, 1)?)?;
            let of_lane = products.narrow(0, lane * parts, parts)?;
            multiply_to(gpu, &of_lane, Matrices::of(&left, outputs)?.transposed(), right)?;
        }
    }
    let (sums, columns) = (gpu.empty((lanes, outputs, inputs))?, outputs * inputs);
    let (kernel, count) = ((File::Activations, "add_runs"), lanes * columns);
    gpu.launch(kernel, Grid::over(count), &[&products, &sums], &[parts, columns, count], &[])?;
    Ok(sums)
}

/// Into how many parts rows are parted: a number that divides them.
fn parts(rows: usize, outputs: usize, inputs: usize) -> usize {
    /// What a block makes of a result, about, and how many blocks keep a GPU busy.
    const TILE: usize = 64;
    const BLOCKS: usize = 512;
    /// Fewest rows that are worth a product.
    const FEWEST: usize = 512;
    let tiles = outputs.div_ceil(TILE) * inputs.div_ceil(TILE);
    let most = (BLOCKS / tiles.max(1)).min(rows / FEWEST).max(1);
    (1..=most).rev().find(|parts| rows.is_multiple_of(*parts)).unwrap_or(1)
}

/// Writes `left · right` of each lane to where there is room for all.
fn multiply_to(gpu: Gpu<'_>, out: &Tensor, left: Matrices<'_>, right: Matrices<'_>) -> Result<()> {
    let lanes = left.lanes.max(right.lanes);
    let fits = |matrices: &Matrices<'_>| matrices.lanes == lanes || matrices.lanes == 1;
    let room = lanes * left.rows * right.columns;
    if left.columns != right.rows || !fits(&left) || !fits(&right) || out.elem_count() != room {
        candle_core::bail!("{left:?} and {right:?} cannot be multiplied");
    }
    let (a, b) = (right.operand(gpu)?, left.operand(gpu)?);
    let (m, n, k) = (right.columns, left.rows, left.columns);
    let (m, n, k) = (size_of_kernel(m)?, size_of_kernel(n)?, size_of_kernel(k)?);
    let (one, zero) = (1f32, 0f32);
    let (c, stride) = (gpu.pointer(out)? as *mut f32, i64::from(m) * i64::from(n));
    let handle = *gpu.device.cublas_handle().handle();
    // SAFETY: the sizes are those of the tensors, which live on this device; `one` and `zero` are read at once.
    let multiplied = unsafe {
        if lanes == 1 {
            result::sgemm(
                handle,
                a.operation,
                b.operation,
                m,
                n,
                k,
                &one,
                a.pointer,
                a.leading,
                b.pointer,
                b.leading,
                &zero,
                c,
                m,
            )
        } else {
            let lanes = size_of_kernel(lanes)?;
            result::sgemm_strided_batched(
                handle,
                a.operation,
                b.operation,
                m,
                n,
                k,
                &one,
                a.pointer,
                a.leading,
                a.stride,
                b.pointer,
                b.leading,
                b.stride,
                &zero,
                c,
                m,
                stride,
                lanes,
            )
        }
    };
    multiplied.map_err(Error::wrap)
}
