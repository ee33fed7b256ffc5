CREATE FUNCTION made() RETURNS int LANGUAGE sql SET role = postgres AS 'SELECT 1'
