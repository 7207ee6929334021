//! Which execution provider really got which nodes of a graph.
//!
//! ONNX Runtime gives to the CPU whatever the provider that was asked for does not take, and says so only in its log.
//! It records the outcome where `session.record_ep_graph_assignment_info` is set; `ort` 2.0.0-rc.15 has no safe calls
//! for reading it.

#![expect(unsafe_code, reason = "ort wraps none of the Session_GetEpGraphAssignmentInfo family")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    ptr,
};

use ort::{AsPointer, session::Session, sys::OrtStatusPtr};

use crate::config::Device;

/// The configuration entry that makes ONNX Runtime keep the record.
pub(super) const RECORD: &str = "session.record_ep_graph_assignment_info";

/// What a product of matrices, an attention or the arithmetic between them is called. A node of these on the CPU is
/// work that the device was asked for, and two copies on the way there and back. Shapes and indices, which ONNX Runtime
/// computes on the CPU on purpose, are not among them.
const WORK: [&str; 22] = [
    "Attention",
    "DynamicQuantizeMatMul",
    "FusedMatMul",
    "Gemm",
    "GroupQueryAttention",
    "LayerNormalization",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "PagedAttention",
    "QLinearMatMul",
    "QMoE",
    "QuickGelu",
    "RMSNormalization",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Softmax",
    "Swish",
];

/// Operators that scale a whole tensor by the largest of its numbers.
const MIXING: [&str; 3] = ["DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"];

/// Operator types and how many nodes of each, by execution provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assignment(BTreeMap<String, BTreeMap<String, usize>>);

impl Assignment {
    /// Reads the record of a session that was opened with [`RECORD`].
    pub(super) fn of(session: &Session) -> ort::Result<Self> {
        let api = ort::api();
        let mut nodes = Self::default();
        // SAFETY: the session lives throughout; ONNX Runtime owns everything that it points to for as long as the
        // session lives, and all of it is copied before this returns.
        unsafe {
            let graphs = list(|out, length| (api.Session_GetEpGraphAssignmentInfo)(session.ptr(), out, length))?;
            for graph in graphs {
                let provider = text(|out| (api.EpAssignedSubgraph_GetEpName)(graph, out))?;
                for node in list(|out, length| (api.EpAssignedSubgraph_GetNodes)(graph, out, length))? {
                    nodes.add(&provider, text(|out| (api.EpAssignedNode_GetOperatorType)(node, out))?);
                }
            }
        }
        Ok(nodes)
    }

    fn add(&mut self, provider: &str, operator: String) {
        *self.0.entry(word(provider).to_owned()).or_default().entry(operator).or_default() += 1;
    }

    /// How many nodes each provider got.
    pub(super) fn nodes(&self) -> BTreeMap<String, usize> {
        self.0.iter().map(|(provider, operators)| (provider.clone(), operators.values().sum())).collect()
    }

    /// Work that the CPU got: operator types and how many of each, for a person. Empty when there is none.
    pub(super) fn work_on_cpu(&self) -> String {
        self.cpu_work().map(|(operator, nodes)| format!("{nodes} {operator}")).collect::<Vec<_>>().join(", ")
    }

    /// How many nodes that is, where another device was asked for.
    pub(super) fn fallback_nodes(&self, device: &Device) -> usize {
        if device.is_cpu() { 0 } else { self.cpu_work().map(|(_, nodes)| nodes).sum() }
    }

    /// The providers that do the model's work; shapes and indices, which the CPU computes, are none.
    pub(super) fn working(&self) -> Vec<String> {
        let works = |name: &str, operators: &BTreeMap<String, usize>| {
            name != "cpu" || operators.keys().any(|operator| WORK.contains(&operator.as_str()))
        };
        self.0.iter().filter(|(name, operators)| works(name, operators)).map(|(name, _)| name.clone()).collect()
    }

    /// Operators that make a row's numbers depend on its neighbours'. Empty when there is none.
    pub(super) fn mixing_rows(&self) -> String {
        let found = MIXING.into_iter().filter(|operator| self.0.values().any(|all| all.contains_key(*operator)));
        found.collect::<Vec<_>>().join(", ")
    }

    fn cpu_work(&self) -> impl Iterator<Item = (&String, &usize)> {
        let operators = self.0.get("cpu").into_iter().flatten();
        operators.filter(|(operator, _)| WORK.contains(&operator.as_str()))
    }
}

/// The configuration's word for a provider, else ONNX Runtime's own.
fn word(provider: &str) -> &str {
    match provider {
        "CPUExecutionProvider" => "cpu",
        "OpenVINOExecutionProvider" => "openvino",
        "CUDAExecutionProvider" => "cuda",
        "TensorrtExecutionProvider" => "tensorrt",
        "NvTensorRTRTXExecutionProvider" => "tensorrt_rtx",
        other => other,
    }
}

/// A list that `call` gives by address and length.
///
/// # Safety
/// On success `call` must have written the address of so many pointers, or a length of 0.
unsafe fn list<T>(call: impl FnOnce(*mut *const *const T, *mut usize) -> OrtStatusPtr) -> ort::Result<Vec<*const T>> {
    let (mut items, mut length) = (ptr::null(), 0);
    // SAFETY: `call` is a function of ONNX Runtime's interface and hands over its status.
    unsafe { ort::Error::result_from_status(call(&mut items, &mut length)) }?;
    if length == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: as promised by the caller.
    Ok(unsafe { std::slice::from_raw_parts(items, length) }.to_vec())
}

/// A text that `call` gives by address.
///
/// # Safety
/// On success `call` must have written the address of a text that ends with a zero byte.
unsafe fn text(call: impl FnOnce(*mut *const c_char) -> OrtStatusPtr) -> ort::Result<String> {
    let mut text = ptr::null();
    // SAFETY: `call` is a function of ONNX Runtime's interface and hands over its status.
    unsafe { ort::Error::result_from_status(call(&mut text)) }?;
    // SAFETY: as promised by the caller.
    Ok(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Cuda;

    /// Nodes by provider, operator type and number.
    pub(in crate::model) fn assignment(nodes: &[(&str, &str, usize)]) -> Assignment {
        let mut assignment = Assignment::default();
        for (provider, operator, count) in nodes {
            (0..*count).for_each(|_| assignment.add(provider, (*operator).to_owned()));
        }
        assignment
    }

    #[test]
    fn work_left_to_the_cpu_is_named_and_shapes_are_not() {
        let mixed = assignment(&[
            ("CUDAExecutionProvider", "MatMul", 7),
            ("CPUExecutionProvider", "Shape", 3),
            ("CPUExecutionProvider", "RMSNormalization", 2),
            ("CPUExecutionProvider", "MatMulInteger", 1),
        ]);
        assert_eq!(mixed.work_on_cpu(), "1 MatMulInteger, 2 RMSNormalization");
        assert_eq!((mixed.fallback_nodes(&Device::Cpu), mixed.fallback_nodes(&Device::Cuda(Cuda::default()))), (0, 3));
        assert_eq!(mixed.nodes(), [("cuda".to_owned(), 7), ("cpu".to_owned(), 6)].into());
        let only_shapes = assignment(&[("CUDAExecutionProvider", "MatMul", 1), ("CPUExecutionProvider", "Gather", 1)]);
        assert_eq!(only_shapes.work_on_cpu(), "");
    }

    #[test]
    fn whoever_works_is_named_and_so_is_what_mixes_rows() {
        let mixed = assignment(&[
            ("CUDAExecutionProvider", "MatMul", 7),
            ("CPUExecutionProvider", "Shape", 3),
            ("CPUExecutionProvider", "DynamicQuantizeLinear", 1),
        ]);
        assert_eq!(
            (mixed.working(), mixed.mixing_rows()),
            (vec!["cuda".to_owned()], "DynamicQuantizeLinear".to_owned())
        );
        let split = assignment(&[("CUDAExecutionProvider", "MatMul", 7), ("CPUExecutionProvider", "Softmax", 1)]);
        assert_eq!((split.working(), split.mixing_rows()), (vec!["cpu".to_owned(), "cuda".to_owned()], String::new()));
    }

    #[test]
    fn a_provider_without_a_word_of_ours_keeps_its_own_name() {
        assert_eq!(
            assignment(&[("NewExecutionProvider", "Add", 1)]).nodes(),
            [("NewExecutionProvider".to_owned(), 1)].into()
        );
    }
}
