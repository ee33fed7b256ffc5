DROP TABLE driver_sqlx_migrated;
