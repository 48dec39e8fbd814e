//! The one integration binary; a comment per module says what it needs.
