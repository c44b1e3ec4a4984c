//! The loom models.
