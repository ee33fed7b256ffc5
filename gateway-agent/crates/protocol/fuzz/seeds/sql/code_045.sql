CREATE FUNCTION made() RETURNS int LANGUAGE c AS '/tmp/x.so', 'f'
