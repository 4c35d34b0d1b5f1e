//! Mistakes that the API server cannot see: the resource says what and where, and the others go on.
