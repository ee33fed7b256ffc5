DROP INDEX driver_sqlx_once;
ALTER TABLE driver_sqlx_migrated DROP COLUMN more;
