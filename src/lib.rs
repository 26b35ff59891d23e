//! rcsnap boots an embedded Linux board from a picture of itself.
