//! Parquet, written beside its place and moved there whole: a file with its own name is complete and on disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;

use super::columns::{self, Cell, DRAWN, Kind, RECORD};
use super::{FileError, Row};

/// Most rows of a row group, and most bytes of values: what is held in memory.
const GROUP: (usize, usize) = (10_000, 16 << 20);

/// Which columns a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sheet {
    /// The record, and what is drawn out of a verdict.
    Verdicts,
    /// The same with a salt for each row.
    Archive,
}

impl Sheet {
    /// Name, kind, and place among the cells of a row.
    fn columns(self) -> impl Iterator<Item = (&'static str, Kind, usize)> {
        let all = RECORD.into_iter().chain(DRAWN.into_iter().map(|(name, kind, _)| (name, kind)));
        let all = all.enumerate().map(|(index, (name, kind))| (name, kind, index));
        all.filter(move |(name, ..)| self == Sheet::Archive || *name != "salt")
    }
}

/// Writes one Parquet file.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    sheet: Sheet,
    file: SerializedFileWriter<File>,
    /// Cells that wait for their row group, row by row.
    rows: Vec<Vec<Cell>>,
    bytes: usize,
}

impl Writer {
    /// Begins `path.part`.
    pub fn create(path: &Path, sheet: Sheet) -> Result<Self, FileError> {
        let part = part_of(path);
        let file = File::create(&part).map_err(FileError::system(&part, "written"))?;
        let columns: Vec<String> = sheet.columns().map(|(name, kind, _)| kind.declared(name)).collect();
        let schema = parse_message_type(&format!("message verdicts {{ {}; }}", columns.join("; ")));
        let level = ZstdLevel::try_new(3).map_err(|error| fault(path, &error))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
        let schema = Arc::new(schema.map_err(|error| fault(path, &error))?);
        let file = SerializedFileWriter::new(file, schema, Arc::new(properties.build()));
        let file = file.map_err(|error| fault(path, &error))?;
        Ok(Self { path: path.to_owned(), part, sheet, file, rows: Vec::new(), bytes: 0 })
    }

    /// One more row.
    pub fn add(&mut self, row: &Row) -> Result<(), FileError> {
        self.bytes += row.value.as_ref().map_or(0, Vec::len);
        self.rows.push(columns::cells(row));
        if self.rows.len() >= GROUP.0 || self.bytes >= GROUP.1 {
            self.group().map_err(|error| fault(&self.path, &error))?;
        }
        Ok(())
    }

    /// Writes what waits, and gives the file its name once all of it is on disk.
    pub fn close(mut self) -> Result<(), FileError> {
        self.group().map_err(|error| fault(&self.path, &error))?;
        let Self { path, part, file, .. } = self;
        let file = file.into_inner().map_err(|error| fault(&path, &error))?;
        put_in_place(&file, &part, &path)
    }

    fn group(&mut self) -> Result<(), ParquetError> {
        let rows = mem::take(&mut self.rows);
        self.bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        for (_, kind, index) in self.sheet.columns() {
            let cells = rows.iter().map(|row| &row[index]);
            match kind {
                Kind::Bytes | Kind::Text => column::<ByteArrayType>(&mut group, cells)?,
                Kind::Int => column::<Int32Type>(&mut group, cells)?,
                Kind::Long | Kind::Time => column::<Int64Type>(&mut group, cells)?,
                Kind::Double => column::<DoubleType>(&mut group, cells)?,
                Kind::Truth => column::<BoolType>(&mut group, cells)?,
            }
        }
        group.close().map(drop)
    }
}

/// A cell as a column's values have it.
trait Held: Sized {
    fn held(cell: &Cell) -> Option<Self>;
}

macro_rules! held {
    ($($name:ident: $type:ty),*) => {$(
        impl Held for $type {
            fn held(cell: &Cell) -> Option<Self> {
                if let Cell::$name(value) = cell { Some(value.clone()) } else { None }
            }
        }
    )*};
}

held!(Bytes: ByteArray, Int: i32, Long: i64, Double: f64, Truth: bool);

fn column<'a, T: DataType<T: Held>>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    cells: impl Iterator<Item = &'a Cell>,
) -> Result<(), ParquetError> {
    let (mut values, mut defined) = (Vec::new(), Vec::new());
    for cell in cells {
        let value = T::T::held(cell);
        defined.push(i16::from(value.is_some()));
        values.extend(value);
    }
    let Some(mut column) = group.next_column()? else { return Ok(()) };
    column.typed::<T>().write_batch(&values, Some(&defined), None)?;
    column.close()
}

/// Writes a small file as a whole, or leaves the one that is there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let part = part_of(path);
    let mut file = File::create(&part).map_err(FileError::system(&part, "written"))?;
    file.write_all(bytes).map_err(FileError::system(&part, "written"))?;
    put_in_place(&file, &part, path)
}

fn part_of(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// A name that was given is only safe once its folder is.
fn put_in_place(file: &File, part: &Path, path: &Path) -> Result<(), FileError> {
    file.sync_all().map_err(FileError::system(part, "written"))?;
    fs::rename(part, path).map_err(FileError::system(path, "written"))?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(FileError::system(folder, "written"))
}

fn fault(path: &Path, error: &ParquetError) -> FileError {
    FileError::Parquet { path: path.to_owned(), row: None, cause: format!("cannot be written: {error}") }
}
