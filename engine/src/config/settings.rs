//! What was given, read key by key: one value at a time, of a type and within bounds.
//!
//! What is wrong is refused with the key, the value, its origin and what would be allowed. What the
//! settings amount to together is not known here.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    error::ConfigError,
    given::{Given, Layers, Source},
    values,
};

/// What was given, before it means anything.
pub(super) struct Settings {
    layers: Layers,
}

impl Settings {
    pub(super) fn new(layers: Layers) -> Settings {
        Settings { layers }
    }

    /// What was given for a key.
    pub(super) fn given(&self, key: &'static str) -> Option<&Given> {
        self.layers.get(key)
    }

    /// The value of a key that is given once.
    pub(super) fn text(&self, key: &'static str) -> Option<&str> {
        let given = self.given(key)?;
        given.texts.first().map(String::as_str)
    }

    /// The error of a key whose value is not allowed.
    pub(super) fn refuse(&self, key: &'static str, allowed: impl Into<String>) -> ConfigError {
        let none = Given { texts: Vec::new(), source: Source::File };
        let given = self.given(key).unwrap_or(&none);
        let value = given.texts.join(",");
        ConfigError::Value { key, value, origin: given.source.clone(), allowed: allowed.into() }
    }

    /// A whole number within bounds.
    pub(super) fn whole(
        &self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        let number = number.filter(|number| (min..=max).contains(number));
        number.map(Some).ok_or_else(|| self.refuse(key, format!("a whole number, {min} to {max}")))
    }

    /// A size in bytes within bounds.
    pub(super) fn size(
        &self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let len = values::size(text).filter(|len| (min..=max).contains(len));
        len.map(Some).ok_or_else(|| {
            let (min, max) = (values::human_size(min), values::human_size(max));
            self.refuse(key, format!("a size such as 512MiB, {min} to {max}"))
        })
    }

    /// A path that the system can take.
    pub(super) fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let good = !text.is_empty() && !text.contains('\0');
        good.then(|| Some(PathBuf::from(text))).ok_or_else(|| self.refuse(key, "a path"))
    }

    /// Refuses two settings that say the same in different words.
    pub(super) fn only_one(
        &self,
        first: &'static str,
        second: &'static str,
    ) -> Result<(), ConfigError> {
        let (Some(one), Some(other)) = (self.given(first), self.given(second)) else {
            return Ok(());
        };
        let (first_origin, second_origin) = (one.source.clone(), other.source.clone());
        Err(ConfigError::Both { first, first_origin, second, second_origin })
    }

    /// A switch.
    pub(super) fn on_or_off(&self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.text(key) {
            None => Ok(default),
            Some("true" | "on") => Ok(true),
            Some("false" | "off") => Ok(false),
            Some(_) => Err(self.refuse(key, "true or false")),
        }
    }
}

/// What a duration may be.
pub(super) fn spans(range: &RangeInclusive<Duration>) -> String {
    let [min, max] = [range.start(), range.end()].map(|end| values::human_duration(*end));
    format!("a duration such as 15s, {min} to {max}; a bare number is seconds")
}
