//! RowDescription: `T`, count, then name, table, attribute, type, size, modifier and format of each column.

use super::{Malformed, Reader};

/// A result column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a [u8],
    /// 0 when the column is not simply a table's.
    pub table: u32,
    pub attnum: i16,
    pub type_oid: u32,
    /// Unset (false) in the reply to a Describe of a statement.
    pub binary: bool,
}

/// Calls `each` for the columns of a body in order.
pub fn columns<'a>(body: &'a [u8], mut each: impl FnMut(Column<'a>)) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    for _ in 0..reader.u16()? {
        let name = reader.cstr()?;
        let table = reader.u32()?;
        let attnum = reader.i16()?;
        let type_oid = reader.u32()?;
        reader.take(6)?;
        let binary = match reader.i16()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed),
        };
        each(Column { name, table, attnum, type_oid, binary });
    }
    reader.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_column() {
        let body = b"\0\x02id\0\0\0\x40\0\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0\
                     x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x01";
        let mut seen = Vec::new();
        columns(body, |column| seen.push(column)).unwrap();
        assert_eq!(
            seen,
            [
                Column { name: b"id", table: 0x4000, attnum: 1, type_oid: 23, binary: false },
                Column { name: b"x", table: 0, attnum: 0, type_oid: 25, binary: true },
            ]
        );
        assert!(columns(&body[..body.len() - 1], |_| ()).is_err());
        assert!(columns(b"\0\0x", |_| ()).is_err());
        assert!(columns(b"\0\x01x\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\x02", |_| ()).is_err());
    }
}
