//! State of the kernel that the rc scripts made, one file a kind. No process owns it.
//!
//! Captured as the difference between "before the scripts" and "after the scripts": an absolute picture
//! would freeze the kernel's own defaults and probe results into the image.
