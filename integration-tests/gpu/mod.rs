//! On an NVIDIA GPU: the same scores as on the CPU, and no quiet CPU. Ignored elsewhere; `integration-tests/gpu/run` runs
//! them, with nothing of the repository but this binary and the model folders that it makes.

use moderato::config::{BatchLimits, Cuda, Strict, Tensorrt, TensorrtPrecision};
use moderato::model::{
    Determinism, Device, GraphChoice, InputLimit, Loaded, ModelError, ModelSettings, OnOverlong, Precision, RowScores,
    load,
};
use moderato::policy::{Policy, PolicyFormat};
use moderato::samples;

use crate::support::{model, provided};

const POLICY: &str = include_str!("../../model/policies/misinformation.yaml");
const POSTS: usize = 500;
const LIMIT: InputLimit = InputLimit { max_input_tokens: 200, on_overlong: OnOverlong::TruncateMiddle };
const BATCH: BatchLimits = BatchLimits { max_tokens: 2048, max_posts: 32 };

/// Beyond this, two floats of 32 bits that were added up in different orders are not the same score.
const SINGLE: f64 = 1e-3;
/// The same for 16 bits, through all layers.
const HALF: f64 = 2e-2;

fn loaded(folder: &str, device: Device) -> Result<Loaded, ModelError> {
    let settings = ModelSettings {
        path: model(folder),
        onnxruntime: Some(provided("ORT_DYLIB_PATH", "")),
        device,
        // Work that stays on the CPU is a fault of the exporter or of ONNX Runtime, to be known.
        strict: Strict::Fail,
        determinism: Determinism::Off,
        recheck_margin: 0.0,
        precision: Precision::Exported,
        prompt_tokens: None,
        threads: Some(std::thread::available_parallelism().unwrap().get()),
        instances: Some(1),
        license_accepted: false,
        require_manifest: true,
        batch: BATCH,
        max_input_tokens: LIMIT.max_input_tokens,
        graph: GraphChoice::Classify,
    };
    load(&settings, &Policy::parse(POLICY, PolicyFormat::Yaml).unwrap())
}

/// The demo's posts, and again with a word before them until there are enough.
fn posts() -> Vec<String> {
    let texts: Vec<String> = samples::texts().collect();
    (0..POSTS).map(|post| format!("{}{}", "Again: ".repeat(post / texts.len()), texts[post % texts.len()])).collect()
}

/// The scores of all posts, in runs of 20 rows of any length.
fn scores(loaded: &mut Loaded) -> Vec<RowScores> {
    let rows: Vec<Vec<u32>> = posts().iter().map(|text| loaded.prompt.tokenize(text, &LIMIT).unwrap().ids).collect();
    let run = |rows: &[Vec<u32>]| {
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        loaded.instances[0].classify(&rows).unwrap()
    };
    rows.chunks(20).flat_map(run).collect()
}

/// The greatest difference of a score, and of the probability outside the labels.
fn difference(left: &[RowScores], right: &[RowScores]) -> f64 {
    assert_eq!((left.len(), right.len()), (POSTS, POSTS));
    let all = |row: &RowScores| [row.scores(), vec![row.outside_mass()]].concat();
    let pairs = left.iter().zip(right).flat_map(|(left, right)| all(left).into_iter().zip(all(right)));
    pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
}

fn agrees_with_the_cpu(folder: &str, device: Device, tolerance: f64) {
    let name = device.name();
    let mut there = loaded(folder, device).unwrap();
    println!("{folder} on {name}: nodes {:?}, {}", there.info.nodes, there.info.precision);
    assert!(there.info.nodes[name] > 0);
    let found = scores(&mut there);
    drop(there);
    let expected = scores(&mut loaded("tiny-fp32", Device::Cpu).unwrap());
    let difference = difference(&expected, &found);
    println!("{folder} on {name} and tiny-fp32 on the CPU differ by {difference:.1e} at most");
    assert!(difference < tolerance, "{difference}");
    // Different posts do get different scores, so the above says something.
    assert!((expected[0].scores()[0] - expected[1].scores()[0]).abs() > tolerance / 10.0);
}

#[test]
#[ignore = "needs an NVIDIA GPU with CUDA 13: run integration-tests/gpu/run"]
fn cuda_and_the_cpu_agree_on_500_posts_in_fp32() {
    agrees_with_the_cpu("tiny-fp32", Device::Cuda(Cuda::default()), SINGLE);
}

#[test]
#[ignore = "needs an NVIDIA GPU with CUDA 13: run integration-tests/gpu/run"]
fn cuda_in_fp16_and_the_cpu_in_fp32_agree_on_500_posts() {
    agrees_with_the_cpu("tiny-fp16", Device::Cuda(Cuda::default()), HALF);
}

#[test]
#[ignore = "needs an NVIDIA GPU with CUDA 13: run integration-tests/gpu/run"]
fn a_memory_limit_that_the_model_does_not_fit_into_ends_the_start() {
    assert!(loaded("tiny-fp32", Device::Cuda(Cuda::default())).is_ok(), "it fits where nothing limits it");
    let limited = Device::Cuda(Cuda { memory_limit: Some(1 << 10), ..Cuda::default() });
    assert!(loaded("tiny-fp32", limited).is_err());
}

#[test]
#[ignore = "needs an NVIDIA GPU with CUDA 13: run integration-tests/gpu/run"]
fn a_gpu_that_the_machine_does_not_have_is_refused_by_name() {
    assert!(loaded("tiny-fp32", Device::Cuda(Cuda::default())).is_ok(), "the first one is there");
    let absent = Device::Cuda(Cuda { device_id: 99, ..Cuda::default() });
    let error = loaded("tiny-fp32", absent).unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("cuda"), "{error}");
}

#[test]
#[ignore = "needs an NVIDIA GPU with CUDA 13 and TensorRT 10: run integration-tests/gpu/run --tensorrt"]
fn tensorrt_and_the_cpu_agree_on_500_posts_and_an_engine_is_built_once() {
    let cache = tempfile::tempdir().unwrap();
    let tensorrt = |precision| {
        Device::Tensorrt(Tensorrt { precision, cache: Some(cache.path().to_owned()), ..Tensorrt::default() })
    };
    let engines = || {
        let folders = std::fs::read_dir(cache.path()).unwrap().map(|folder| folder.unwrap().path());
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
        files.filter(|file| file.extension().is_some_and(|kind| kind == "engine")).count()
    };
    agrees_with_the_cpu("tiny-fp32", tensorrt(TensorrtPrecision::Auto), HALF);
    let built = engines();
    assert!(built > 0);
    agrees_with_the_cpu("tiny-fp32", tensorrt(TensorrtPrecision::Auto), HALF);
    assert_eq!(engines(), built);
    agrees_with_the_cpu("tiny-fp32", tensorrt(TensorrtPrecision::Fp16), HALF);
    assert!(engines() > built);
}
