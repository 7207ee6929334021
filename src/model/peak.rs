//! The matrix-product peak of this machine: what one thread of ONNX Runtime reaches on one large product.
//!
//! The measure that a model's speed is held against. Weights are constant, as in a model, so that they are packed once.

use std::time::Instant;

use ort::{
    editor::{Graph, Model, Node, ONNX_DOMAIN, Opset},
    memory::Allocator,
    session::Session,
    value::{Outlet, PrimitiveTensorElementType, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType},
};

use super::{error::ModelError, session::Runtime};
use crate::config::ModelSettings;

/// Rows, inner length and columns.
const SHAPES: [[i64; 3]; 2] = [[1024, 1024, 1024], [512, 576, 3072]];
const ROUNDS: usize = 4;

/// The greatest rate of multiply-adds, counted as two operations each, in operations per second of one thread: of
/// single precision or, for `int8`, of 8-bit integers.
pub fn gemm_peak(settings: &ModelSettings, precision: &str) -> Result<f64, ModelError> {
    let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
    let mut best = 0.0f64;
    for shape in SHAPES {
        let measured = if precision == "int8" {
            rate::<u8, i8>(&runtime, "MatMulInteger", shape, 3, 5, TensorElementType::Int32)
        } else {
            rate::<f32, f32>(&runtime, "MatMul", shape, 0.5, 0.25, TensorElementType::Float32)
        };
        best = best.max(measured.map_err(|error| ModelError::Session(format!("no peak could be measured: {error}")))?);
    }
    Ok(best)
}

fn rate<A, B>(
    runtime: &Runtime,
    operator: &str,
    [rows, inner, columns]: [i64; 3],
    a: A,
    b: B,
    out: TensorElementType,
) -> ort::Result<f64>
where
    A: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
    B: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static,
{
    let mut weights = Tensor::<B>::new(&Allocator::default(), [inner, columns])?;
    weights.extract_tensor_mut().1.fill(b);
    let outlet = |name: &str, ty, shape: [i64; 2]| {
        Outlet::new(
            name,
            ValueType::Tensor { ty, shape: Shape::new(shape), dimension_symbols: SymbolicDimensions::empty(2) },
        )
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([outlet("a", A::into_tensor_element_type(), [rows, inner])])?;
    graph.set_outputs([outlet("c", out, [rows, columns])])?;
    graph.add_initializer("b", weights, false)?;
    graph.add_node(Node::new(operator, ONNX_DOMAIN, "product", ["a", "b"], ["c"], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 23)?])?;
    model.set_graph(graph)?;
    let mut session: Session = model.into_session(&runtime.options(1)?)?;
    let input = Tensor::from_array(([rows, inner], vec![a; (rows * inner) as usize]))?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        session.run(ort::inputs![&input])?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (rows * inner * columns) as f64 / best)
}
