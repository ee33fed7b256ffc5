CREATE FUNCTION made() RETURNS int LANGUAGE sql SET search_path = evil AS 'SELECT id FROM vault'
