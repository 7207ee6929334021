//! The matrix-product peak of this machine: what one thread of ONNX Runtime reaches on one large product, while as many
//! others do the same as the model has instances: cores slow each other down, in the model as here.
//!
//! The measure that a model's speed is held against. Weights are constant, as in a model, so that they are packed once.

use std::thread;
use std::time::{Duration, Instant};

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
/// Long enough for the threads to run at the same time most of it.
const TIME: Duration = Duration::from_millis(300);

/// The greatest rate of multiply-adds, counted as two operations each, in operations per second of one of `threads`
/// threads: of single precision or, where int8 answers, of 8-bit integers.
pub fn gemm_peak(settings: &ModelSettings, precision: &str, threads: usize) -> Result<f64, ModelError> {
    let runtime = Runtime::load(settings.onnxruntime.as_deref())?;
    let mut best = 0.0f64;
    for shape in SHAPES {
        let one = || match precision.starts_with("int8") {
            true => rate::<u8, i8>(&runtime, "MatMulInteger", shape, 3, 5, TensorElementType::Int32),
            false => rate::<f32, f32>(&runtime, "MatMul", shape, 0.5, 0.25, TensorElementType::Float32),
        };
        let rates: Vec<ort::Result<f64>> = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            let panicked = |_| Err(ort::Error::new("a measuring thread panicked"));
            all.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
        });
        let sum = rates.into_iter().sum::<ort::Result<f64>>();
        let sum = sum.map_err(|error| ModelError::Session(format!("no peak could be measured: {error}")))?;
        best = best.max(sum / threads as f64);
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
    let until = Instant::now() + TIME;
    while Instant::now() < until {
        let started = Instant::now();
        session.run(ort::inputs![&input])?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(2.0 * (rows * inner * columns) as f64 / best)
}
