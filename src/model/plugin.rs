//! Execution providers that come as a library of their own: loaded into the environment, then chosen by their devices.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{environment::Environment, memory::DeviceType, session::builder::SessionBuilder};

use super::error::ModelError;

/// A plugin library and the device of it that is wanted.
pub(super) struct Plugin<'a> {
    /// What `model.device` says.
    pub device: &'static str,
    /// ONNX Runtime's name for the provider.
    pub provider: &'static str,
    /// The library.
    pub library: &'a Path,
    /// How to get it.
    pub mend: &'static str,
    /// Which kind of device.
    pub kind: DeviceType,
    /// Which of them.
    pub index: usize,
}

/// What is loaded: a library stays until the process ends.
static LOADED: Mutex<Vec<(&'static str, PathBuf)>> = Mutex::new(Vec::new());

impl Plugin<'_> {
    /// Puts the device before the CPU. `options` are the provider's own.
    pub(super) fn add(
        &self,
        builder: SessionBuilder,
        environment: &Environment,
        options: &[(&str, &str)],
    ) -> Result<SessionBuilder, ModelError> {
        self.load(environment)?;
        let own = |device: &ort::device::Device<'_>| device.ep().is_ok_and(|provider| provider == self.provider);
        let fits = |device: &ort::device::Device<'_>| own(device) && device.hardware_device().ty() == self.kind;
        let Some(device) = environment.devices().filter(fits).nth(self.index) else {
            let has: Vec<String> = environment.devices().filter(own).map(|device| kind(&device)).collect();
            let has = if has.is_empty() { "none at all".to_owned() } else { has.join(", ") };
            return Err(self.unusable(&format!(
                "{} finds no {:?} with index {} for {}; it has {has}: check the driver, model.device_id and the kind of \
                 device, or get the right plugin with {}",
                self.library.display(),
                self.kind,
                self.index,
                self.provider,
                self.mend
            )));
        };
        let options: Vec<(String, String)> =
            options.iter().map(|(key, value)| (format!("{}.{key}", self.provider), (*value).to_owned())).collect();
        builder
            .with_devices([device], Some(&options))
            .map_err(|error| self.unusable(&format!("its plugin refuses the options: {error}")))
    }

    fn load(&self, environment: &Environment) -> Result<(), ModelError> {
        let path = self.library.canonicalize().map_err(|error| {
            self.unusable(&format!("its plugin {} cannot be found: {error}: {}", self.library.display(), self.mend))
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.iter().any(|(provider, library)| *provider == self.provider && *library == path) {
            return Ok(());
        }
        environment.register_ep_library(self.provider, &path).map_err(|error| {
            let library = path.display();
            self.unusable(&format!(
                "its plugin {library} cannot be loaded: {error}: if it names another library, that \
                 one or its driver is missing; the plugin itself comes with {}",
                self.mend
            ))
        })?;
        loaded.push((self.provider, path));
        Ok(())
    }

    fn unusable(&self, why: &str) -> ModelError {
        ModelError::Device(format!(
            "device {} was asked for and cannot be used: {why}; {}",
            self.device,
            super::provider::NEVER_CPU
        ))
    }
}

fn kind(device: &ort::device::Device<'_>) -> String {
    format!("{:?}", device.hardware_device().ty())
}

/// Loads libraries that stand beside a plugin under a version's name and are looked for elsewhere; one that cannot be
/// loaded is missed when the plugin is, which then says so.
pub(super) fn preload_beside(library: &Path, beginnings: &[&str]) {
    let Some(folder) = library.parent() else { return };
    for beginning in beginnings {
        let here = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning));
        if let Some(path) = here.filter(named).min() {
            let _ = ort::util::preload_dylib(&path);
        }
    }
}
