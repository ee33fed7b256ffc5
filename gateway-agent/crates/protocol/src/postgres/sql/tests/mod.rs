//! Statements and what is seen in them.
