CREATE FUNCTION made() RETURNS int LANGUAGE internal AS 'pg_read_file'
