CREATE FUNCTION made(a int DEFAULT pg_terminate_backend(1)::int) RETURNS int LANGUAGE sql AS 'SELECT 1'
