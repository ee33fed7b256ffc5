//! FunctionCall: `F`, the function's oid, argument formats, arguments, the result's format. And its response, `V`.

use super::{Malformed, Reader};

/// A FunctionCall message.
#[derive(Debug, Clone, Copy)]
pub struct FunctionCall<'a> {
    pub function: u32,
    /// Argument formats and arguments, as they came: laid out like the parameters of a Bind.
    pub arguments: &'a [u8],
    pub count: u16,
}

impl<'a> FunctionCall<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body);
        let function = reader.u32()?;
        let arguments = reader.rest();
        reader.i16_list()?;
        let count = reader.u16()?;
        for _ in 0..count {
            reader.value()?;
        }
        let length = arguments.len() - reader.rest().len();
        let arguments = arguments.get(..length).ok_or(Malformed)?;
        reader.i16()?;
        reader.end()?;
        Ok(Self { function, arguments, count })
    }
}

/// The value in a FunctionCallResponse; `None` is NULL.
pub fn response(body: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut reader = Reader::new(body);
    let value = reader.value()?;
    reader.end()?;
    Ok(value)
}

/// The SQL that calls the same function: for who decides about it. Only functions whose oid is the same on every
/// server are known, which are those that client libraries call this way.
pub fn as_sql(function: u32, count: u16) -> Option<String> {
    let (_, name, arity) = LARGE_OBJECTS.iter().find(|(oid, _, _)| *oid == function)?;
    if *arity != count {
        return None;
    }
    let places: Vec<_> = (1..=count).map(|at| format!("${at}")).collect();
    Some(format!("SELECT pg_catalog.{name}({})", places.join(", ")))
}

/// Whether it gives back data, and not only a descriptor, a position or a count.
pub fn gives_data(function: u32) -> bool {
    function == LOREAD || !LARGE_OBJECTS.iter().any(|(oid, _, _)| *oid == function)
}

const LOREAD: u32 = 954;

/// Oid, name and number of arguments (`pg_proc.dat`).
const LARGE_OBJECTS: &[(u32, &str, u16)] = &[
    (715, "lo_create", 1),
    (764, "lo_import", 1),
    (765, "lo_export", 2),
    (767, "lo_import", 2),
    (952, "lo_open", 2),
    (953, "lo_close", 1),
    (LOREAD, "loread", 2),
    (955, "lowrite", 2),
    (956, "lo_lseek", 3),
    (957, "lo_creat", 1),
    (958, "lo_tell", 1),
    (964, "lo_unlink", 1),
    (1004, "lo_truncate", 2),
    (3170, "lo_lseek64", 3),
    (3171, "lo_tell64", 1),
    (3172, "lo_truncate64", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let body = b"\0\0\x03\xb8\0\x01\0\x01\0\x02\0\0\0\x04\0\0\0\x07\xff\xff\xff\xff\0\x01";
        let call = FunctionCall::read(body).unwrap();
        assert_eq!((call.function, call.count), (952, 2));
        assert_eq!(call.arguments, &body[4..body.len() - 2]);
        assert!(FunctionCall::read(&body[..body.len() - 1]).is_err());
        assert!(FunctionCall::read(b"\0\0\x03\xb8\0\0\xff\xff\0\0").is_err());
    }

    #[test]
    fn responses() {
        assert_eq!(response(b"\0\0\0\x02ab"), Ok(Some(&b"ab"[..])));
        assert_eq!(response(b"\xff\xff\xff\xff"), Ok(None));
        assert_eq!(response(b"\0\0\0\x02abc"), Err(Malformed));
    }

    #[test]
    fn the_same_in_sql() {
        assert_eq!(as_sql(952, 2).as_deref(), Some("SELECT pg_catalog.lo_open($1, $2)"));
        assert_eq!(as_sql(952, 3), None);
        assert_eq!(as_sql(16_384, 1), None);
        assert!(gives_data(954) && gives_data(16_384) && !gives_data(952));
    }
}
