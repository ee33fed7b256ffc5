ALTER TABLE driver_sqlx_migrated ADD COLUMN more numeric(10, 2) NOT NULL DEFAULT 1.5;
CREATE UNIQUE INDEX driver_sqlx_once ON driver_sqlx_migrated (what);
UPDATE driver_sqlx_migrated SET what = upper(what);
