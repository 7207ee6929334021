//! The rows' keys and values: one tensor for each layer's keys and one for its values, with room for every row.
//!
//! A run is given the rows that it is about, as past and as present: it writes what is new in place and nothing is copied.

#![expect(unsafe_code, reason = "ort binds no part of a tensor, and none as input and output at the same time")]

use std::{ffi::CString, ops::Range};

use half::f16;
use ort::{
    AsPointer,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::IoBinding,
    value::{DynTensor, PrimitiveTensorElementType, Shape, TensorElementType, TensorRefMut},
};

use super::super::{
    contract::{CacheShape, past_names, present_names},
    error::{ModelError, run_failed},
};

/// Key and value, layer by layer, in host memory.
pub(super) struct RowBuffers {
    tensors: Vec<Buffer>,
    half: bool,
}

struct Buffer {
    tensor: DynTensor,
    past: CString,
    present: CString,
    /// Of one row.
    dims: [usize; 3],
}

impl Buffer {
    fn row(&self) -> usize {
        self.dims.iter().product()
    }
}

impl RowBuffers {
    /// Room for `rows` rows of `capacity` tokens each.
    pub(super) fn new(cache: CacheShape, rows: usize, capacity: usize, transposed: bool) -> Result<Self, ModelError> {
        let names = past_names(cache.layers).into_iter().zip(present_names(cache.layers));
        let element = if cache.half { TensorElementType::Float16 } else { TensorElementType::Float32 };
        let buffer = |(index, (past, present)): (usize, (String, String))| {
            let dims = match transposed && index % 2 == 0 {
                true => [cache.kv_heads, cache.head_dim, capacity],
                false => [cache.kv_heads, capacity, cache.head_dim],
            };
            let mut tensor = DynTensor::new(&Allocator::default(), element, [rows, dims[0], dims[1], dims[2]])?;
            // Memory is taken now, not when the first row comes.
            if cache.half {
                tensor.try_extract_tensor_mut::<f16>()?.1.fill(f16::ZERO);
            } else {
                tensor.try_extract_tensor_mut::<f32>()?.1.fill(0.0);
            }
            Ok(Buffer { tensor, past: CString::new(past)?, present: CString::new(present)?, dims })
        };
        let tensors = names.enumerate().map(buffer).collect::<ort::Result<_>>().map_err(run_failed)?;
        Ok(Self { tensors, half: cache.half })
    }

    /// Puts the prompt's cache, key and value layer by layer, before what each row will have.
    pub(super) fn begin_with(&mut self, prompt: &[(String, DynTensor)]) -> Result<(), ModelError> {
        fn copy<T: PrimitiveTensorElementType + Copy>(buffer: &mut Buffer, prompt: &DynTensor) -> ort::Result<()> {
            let [kv_heads, capacity, size] = buffer.dims;
            let (_, prompt) = prompt.try_extract_tensor::<T>()?;
            let begins = prompt.len() / kv_heads;
            let (_, rows) = buffer.tensor.try_extract_tensor_mut::<T>()?;
            for (head, out) in rows.chunks_exact_mut(capacity * size).enumerate() {
                let head = head % kv_heads;
                out[..begins].copy_from_slice(&prompt[head * begins..][..begins]);
            }
            Ok(())
        }
        for (buffer, (_, prompt)) in self.tensors.iter_mut().zip(prompt) {
            let copied = if self.half { copy::<f16>(buffer, prompt) } else { copy::<f32>(buffer, prompt) };
            copied.map_err(run_failed)?;
        }
        Ok(())
    }

    /// Gives a run these rows, as its past and as its present.
    pub(super) fn bind(&mut self, binding: &mut IoBinding, rows: Range<usize>) -> Result<(), ModelError> {
        for buffer in &mut self.tensors {
            let bound = match self.half {
                true => bind::<f16>(buffer, binding, rows.clone()),
                false => bind::<f32>(buffer, binding, rows.clone()),
            };
            bound.map_err(run_failed)?;
        }
        Ok(())
    }

    /// Copies all that one row has over another.
    pub(super) fn move_row(&mut self, from: usize, to: usize) -> Result<(), ModelError> {
        for buffer in &mut self.tensors {
            let row = buffer.row();
            let moved = match self.half {
                true => buffer.tensor.try_extract_tensor_mut::<f16>().map(|(_, all)| copy_within(all, row, from, to)),
                false => buffer.tensor.try_extract_tensor_mut::<f32>().map(|(_, all)| copy_within(all, row, from, to)),
            };
            moved.map_err(run_failed)?;
        }
        Ok(())
    }
}

fn copy_within<T: Copy>(all: &mut [T], row: usize, from: usize, to: usize) {
    all.copy_within(from * row..(from + 1) * row, to * row);
}

fn bind<T: PrimitiveTensorElementType + std::fmt::Debug>(
    buffer: &mut Buffer,
    binding: &mut IoBinding,
    rows: Range<usize>,
) -> ort::Result<()> {
    let row = buffer.row();
    let dims = [rows.len(), buffer.dims[0], buffer.dims[1], buffer.dims[2]].map(|size| size as i64);
    let (_, all) = buffer.tensor.try_extract_tensor_mut::<T>()?;
    let part = &mut all[rows.start * row..rows.end * row];
    let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
    // SAFETY: the memory is as large as the shape says. It belongs to a tensor that `RowBuffers` never gives away, and
    // whoever runs the binding owns both: the memory is there for every run. Between runs nothing else refers to it; a
    // kernel that is given it twice writes through the one and does not read the other meanwhile. ONNX Runtime copies
    // names and handles; each status is consumed once.
    unsafe {
        let view = TensorRefMut::<T>::from_raw(host, part.as_mut_ptr().cast(), Shape::new(dims))?;
        let api = ort::api();
        let bound = (api.BindInput)(binding.ptr_mut(), buffer.past.as_ptr(), view.ptr());
        ort::Error::result_from_status(bound)?;
        let bound = (api.BindOutput)(binding.ptr_mut(), buffer.present.as_ptr(), view.ptr());
        ort::Error::result_from_status(bound)
    }
}
