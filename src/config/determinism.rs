//! How far scores can be repeated, and what that asks of the other keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::raw::{RawConfig, RawPrecision};
use super::{Device, Task};

/// How far scores can be repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Determinism {
    /// To about 0.0001: which posts run together, and how long they are, may choose other kernels.
    #[default]
    Off,
    /// To the last bit, under the fingerprint that each verdict carries: runs have fixed shapes that depend on each post's
    /// own length alone, one thread each, and kernels that give the same each time. Only for verdicts.
    Strict,
}

impl Checker {
    /// Threads of one run, if the configuration says; whatever would let chance into strict scores is refused.
    pub(super) fn threads(&mut self, raw: &RawConfig, device: &Device) -> Option<usize> {
        let threads = raw.model.threads.number();
        if raw.determinism == Determinism::Off {
            return threads;
        }
        self.require(raw.task == Task::Classify, "determinism", || {
            "strict is for verdicts, and the task is draft_note: set determinism: off".to_owned()
        });
        self.require(raw.model.precision != RawPrecision::Auto, "model.precision", || {
            "auto chooses by what it measures at start, and determinism is strict: name one, such as int8".to_owned()
        });
        let tuned = matches!(device, Device::Tensorrt(_) | Device::TensorrtRtx(_));
        self.require(!tuned, "model.device", || {
            format!(
                "{} chooses kernels by what it measures, and determinism is strict: choose cuda or cpu, or set \
                 determinism: off",
                device.name()
            )
        });
        self.require(!device.is_cpu() || threads.is_none_or(|threads| threads == 1), "model.threads", || {
            "must be 1 or auto where determinism is strict: use model.instances for the cores".to_owned()
        });
        if device.is_cpu() { Some(1) } else { threads }
    }
}
