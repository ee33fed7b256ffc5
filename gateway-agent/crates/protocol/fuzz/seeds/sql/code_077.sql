DO $$ BEGIN FOR i IN 1..(SELECT pin FROM vault LIMIT 1) LOOP UPDATE scratch SET n = i; END LOOP; END $$
